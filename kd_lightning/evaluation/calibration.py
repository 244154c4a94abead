"""Calibration of the nets of a run on test, before and after temperature scaling.

``calibration.json`` of a run directory holds for each net:

    test          the curves of the chosen weights
    temperature   T, fitted on val; only with ``evaluation.temperature_scaling=true``
    scaled        the curves of ``softmax(z / T)``; only where there is a temperature

The curves are these. Bins are listed from the lowest value to the highest.

    reliability, adaptive   ``count``, ``confidence`` and ``accuracy`` of 15 bins of equal width
                            (reliability) or equal mass (adaptive); null where a bin is empty
    confidence, entropy     number of samples in 20 bins of [0, 1], counted separately for
                            ``right`` and ``wrong`` predictions; the entropy is divided by log C
    risk_coverage           ``coverage`` and ``risk``, at most 100 points

Dimensions: N samples, C classes.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.base.files import atomic_write, json_text
from kd_lightning.base.kept_files import write_kept
from kd_lightning.evaluation.metrics import classification_metrics
from kd_lightning.uncertainty.histograms import confidence_histogram, entropy_histogram
from kd_lightning.uncertainty.reliability import (
    Reliability,
    equal_mass,
    reliability_curve,
    top_prediction,
)
from kd_lightning.uncertainty.selective import risk_coverage

MAX_POINTS = 100
DIGITS = 6  # enough for drawing; nothing is computed from the rounded values

Logits = Float[Tensor, "N C"]
Labels = Int[Tensor, " N"]


def scaled_metrics(logits: Logits, labels: Labels, temperature: float) -> dict[str, float]:
    """The temperature, and ``classification_metrics`` of the logits divided by it, without
    those of the predicted classes, which no temperature changes.
    """
    metrics = classification_metrics(logits / temperature, labels)
    for unchanged in ("accuracy", "balanced_accuracy", "macro_f1"):
        del metrics[unchanged]
    return {"temperature": temperature, **metrics}


def calibration_report(
    logits: Mapping[str, Logits], labels: Labels, temperatures: Mapping[str, float]
) -> dict[str, Any]:
    """The content of ``calibration.json``.

    Args:
        logits: of each net on test.
        temperatures: of the nets that have one.
    """
    report: dict[str, Any] = {}
    for name, net_logits in logits.items():
        report[name] = {"test": calibration_curves(net_logits, labels)}
        if name in temperatures:
            report[name]["temperature"] = temperatures[name]
            report[name]["scaled"] = calibration_curves(net_logits / temperatures[name], labels)
    return report


def calibration_curves(logits: Logits, labels: Labels) -> dict[str, Any]:
    """All curves of one net's predictions, as plain JSON values."""
    return {
        "reliability": _bins(reliability_curve(logits, labels)),
        "adaptive": _bins(reliability_curve(logits, labels, binning=equal_mass)),
        "confidence": _by_outcome(confidence_histogram, logits, labels),
        "entropy": _by_outcome(entropy_histogram, logits, labels),
        "risk_coverage": _risk_coverage(logits, labels),
    }


def _bins(bins: Reliability) -> dict[str, list]:
    return {
        "count": bins.count.tolist(),
        "confidence": _rounded(bins.confidence),
        "accuracy": _rounded(bins.accuracy),
    }


def _by_outcome(histogram: Callable, logits: Logits, labels: Labels) -> dict[str, list[int]]:
    right = top_prediction(logits, labels)[1].bool()
    return {
        "right": histogram(logits[right]).tolist(),
        "wrong": histogram(logits[~right]).tolist(),
    }


def _risk_coverage(logits: Logits, labels: Labels) -> dict[str, list]:
    """At most ``MAX_POINTS`` points of the curve, at nearly equal distances; the last coverage is
    1.
    """
    coverage, risk = risk_coverage(logits, labels)
    points = min(MAX_POINTS, len(risk))
    indices = [math.ceil(len(risk) * i / points) - 1 for i in range(1, points + 1)]
    return {"coverage": _rounded(coverage[indices]), "risk": _rounded(risk[indices])}


def _rounded(values: Tensor) -> list[float | None]:
    """Rounded numbers; None for NaN, which JSON does not have."""
    return [None if math.isnan(v) else round(v, DIGITS) for v in values.tolist()]


def write(report: Mapping[str, Any], directory: Path, *, plots: bool) -> None:
    """Writes ``calibration.json`` and, with ``plots``, ``calibration.png``. Without ``plots`` it
    removes the picture of an earlier test.
    """
    write_kept(directory, {"calibration.json": json_text(report)})
    if not plots:
        (directory / "calibration.png").unlink(missing_ok=True)
    else:
        # imported here because matplotlib is slow to import
        from kd_lightning.evaluation.calibration_plot import draw

        with atomic_write(directory / "calibration.png") as unfinished:
            draw(report).savefig(unfinished, format="png")
