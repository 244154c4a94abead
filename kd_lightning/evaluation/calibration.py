"""How far a run's nets can be believed: the curves on test, and what a fitted temperature makes
of them.

``calibration.json`` of a run directory, net by net:

    test          the curves of the chosen weights
    temperature   T, fitted on val, and
    scaled        the curves of ``softmax(z / T)``; both only where a temperature was asked for

and of each curve, the least sure first where it is in bins:

    reliability, adaptive   ``count``, ``confidence`` and ``accuracy`` of 15 bins of equal width,
                            or of equal mass; null where a bin is empty
    confidence, entropy     samples in 20 bins of [0, 1], the ``right`` and the ``wrong`` ones by
                            themselves; the entropy as a share of log C
    risk_coverage           ``coverage`` and ``risk``, at 100 points or fewer

Dimensions: N samples, C classes.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.base.files import whole, write_json
from kd_lightning.evaluation.metrics import classification_metrics
from kd_lightning.uncertainty.histograms import confidence_histogram, entropy_histogram
from kd_lightning.uncertainty.reliability import (
    Reliability,
    equal_mass,
    reliability_curve,
    top_prediction,
)
from kd_lightning.uncertainty.selective import risk_coverage

POINTS = 100
DIGITS = 6  # of what is drawn, and not computed with

Logits = Float[Tensor, "N C"]
Labels = Int[Tensor, " N"]


def scaled_metrics(logits: Logits, labels: Labels, temperature: float) -> dict[str, float]:
    """The temperature, and ``classification_metrics`` with it: without the accuracy, which no
    temperature changes.
    """
    metrics = classification_metrics(logits / temperature, labels)
    del metrics["accuracy"]
    return {"temperature": temperature, **metrics}


def curves_of_nets(
    logits: Mapping[str, Logits], labels: Labels, temperatures: Mapping[str, float]
) -> dict[str, Any]:
    """The content of ``calibration.json``, of test logits and the temperatures that there are."""
    report: dict[str, Any] = {}
    for name, of_net in logits.items():
        report[name] = {"test": curves(of_net, labels)}
        if name in temperatures:
            report[name]["temperature"] = temperatures[name]
            report[name]["scaled"] = curves(of_net / temperatures[name], labels)
    return report


def curves(logits: Logits, labels: Labels) -> dict[str, Any]:
    """All curves of one net's predictions, as plain JSON values."""
    return {
        "reliability": _bins(reliability_curve(logits, labels)),
        "adaptive": _bins(reliability_curve(logits, labels, binning=equal_mass)),
        "confidence": _by_outcome(confidence_histogram, logits, labels),
        "entropy": _by_outcome(entropy_histogram, logits, labels),
        "risk_coverage": _thinned(logits, labels),
    }


def _bins(bins: Reliability) -> dict[str, list]:
    return {
        "count": bins.count.tolist(),
        "confidence": _numbers(bins.confidence),
        "accuracy": _numbers(bins.accuracy),
    }


def _by_outcome(histogram: Callable, logits: Logits, labels: Labels) -> dict[str, list[int]]:
    right = top_prediction(logits, labels)[1].bool()
    return {
        "right": histogram(logits[right]).tolist(),
        "wrong": histogram(logits[~right]).tolist(),
    }


def _thinned(logits: Logits, labels: Labels) -> dict[str, list]:
    """The curve at coverages as even as the samples allow; the last is 1."""
    coverage, risk = risk_coverage(logits, labels)
    points = min(POINTS, len(risk))
    at = [math.ceil(len(risk) * i / points) - 1 for i in range(1, points + 1)]
    return {"coverage": _numbers(coverage[at]), "risk": _numbers(risk[at])}


def _numbers(values: Tensor) -> list[float | None]:
    """With as many digits as are drawn; JSON has no NaN."""
    return [None if math.isnan(v) else round(v, DIGITS) for v in values.tolist()]


def write(report: Mapping[str, Any], directory: Path, *, plots: bool) -> None:
    """Writes ``calibration.json``, and ``calibration.png`` if it is asked for: else there is none,
    not that of an earlier test either.
    """
    write_json(directory / "calibration.json", report)
    if not plots:
        (directory / "calibration.png").unlink(missing_ok=True)
    else:
        from kd_lightning.evaluation.calibration_plot import (
            draw,  # here: matplotlib is slow to import
        )

        with whole(directory / "calibration.png") as unfinished:
            draw(report).savefig(unfinished, format="png")
