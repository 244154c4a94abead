"""How confident a classifier is, and how well that agrees with its errors: functions of tensors.

Confidences and gates (weights of the teacher for each sample), measures over stochastic passes,
calibration errors, reliability and risk-coverage curves, and temperature scaling. Most return one
value per sample; errors, curves and temperatures belong to a whole set of samples.
"""

from kd_lightning.uncertainty.calibration import (
    CalibrationError,
    adaptive_calibration_error,
    bin_gaps,
    brier_score,
    confidence_gap,
    expected_calibration_error,
    negative_log_likelihood,
    overconfidence_error,
)
from kd_lightning.uncertainty.confidence import (
    correct_confidence,
    entropy_confidence,
    entropy_weight,
    hard_gate,
    margin_confidence,
    max_probability_confidence,
    mutual_information_confidence,
    predictive_entropy,
    soft_gate,
    uniform_confidence,
)
from kd_lightning.uncertainty.histograms import confidence_histogram, entropy_histogram
from kd_lightning.uncertainty.ordered_mixup import (
    Mixed,
    entropy_score,
    margin_score,
    max_probability_score,
    mix_in_order,
    position_weights,
)
from kd_lightning.uncertainty.reliability import (
    Reliability,
    equal_mass,
    equal_width,
    reliability_curve,
    top_prediction,
)
from kd_lightning.uncertainty.samples import disagreement, mutual_information
from kd_lightning.uncertainty.selective import (
    RiskCoverage,
    area_under_risk_coverage,
    log_odds,
    risk_coverage,
)
from kd_lightning.uncertainty.temperature import fit_temperature
from kd_lightning.uncertainty.ties import mean_over_ties

__all__ = [
    "CalibrationError",
    "Mixed",
    "Reliability",
    "RiskCoverage",
    "adaptive_calibration_error",
    "area_under_risk_coverage",
    "bin_gaps",
    "brier_score",
    "confidence_gap",
    "confidence_histogram",
    "correct_confidence",
    "disagreement",
    "entropy_confidence",
    "entropy_histogram",
    "entropy_score",
    "entropy_weight",
    "equal_mass",
    "equal_width",
    "expected_calibration_error",
    "fit_temperature",
    "hard_gate",
    "log_odds",
    "margin_confidence",
    "margin_score",
    "max_probability_confidence",
    "max_probability_score",
    "mean_over_ties",
    "mix_in_order",
    "mutual_information",
    "mutual_information_confidence",
    "negative_log_likelihood",
    "overconfidence_error",
    "position_weights",
    "predictive_entropy",
    "reliability_curve",
    "risk_coverage",
    "soft_gate",
    "top_prediction",
    "uniform_confidence",
]
