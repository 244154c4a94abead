"""Charts of confidence: reliability diagrams, confidence of right and wrong answers, and risk
against coverage. Their numbers are those of ``calibration.json``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kd_lightning.base.proportions import wilson_interval
from kd_lightning.base.words import percent
from kd_lightning.reports.page.blocks import Figure
from kd_lightning.reports.page.plot import Plot, color
from kd_lightning.reports.page.scales import linear_axis, unit_axis

FEW = 10  # a bin with fewer samples has a hollow marker
LARGEST, SMALLEST = 9.0, 2.0  # radius of a marker, pixels
SIDE, WIDE = 260, 820

Curves = Mapping[str, Any]


def reliability_figures(calibration: Mapping[str, Any]) -> list[Figure]:
    """A diagram for each net, and one for its temperature-scaled probabilities if there are any."""
    figures = []
    for number, (name, net) in enumerate(calibration.items()):
        figures.append(reliability_figure(name, net["test"]["reliability"], color(number)))
        if "scaled" in net:
            title = f"{name}, T = {net['temperature']:.2f}"
            figures.append(reliability_figure(title, net["scaled"]["reliability"], color(number)))
    return figures


def reliability_figure(title: str, bins: Curves, style: str) -> Figure:
    """Accuracy against confidence. The area of a marker is the number of samples of its bin, and
    the bar is the 95 % interval of its accuracy.
    """
    plot = Plot(unit_axis("confidence"), unit_axis("accuracy"), width=SIDE, height=SIDE, top=42)
    plot.line([(0, 0), (1, 1)], "diagonal", "perfectly calibrated")
    most = max(bins["count"])
    for count, confidence, accuracy in zip(*(bins[k] for k in ("count", "confidence", "accuracy")),
                                           strict=True):  # fmt: skip
        if not count:
            continue
        low, high = wilson_interval(accuracy * count, count)
        words = (
            f"confidence {confidence:.3f}, accuracy {accuracy:.3f}, {_samples(count)}, "
            f"95 % interval {low:.3f} to {high:.3f}"
        )
        few = " few" if count < FEW else ""
        plot.count(confidence, f"{count:,}")
        plot.interval(confidence, low, high, style + few)
        plot.dot((confidence, accuracy), style + few, words, radius=marker_radius(count, most))
    return Figure(plot.svg(f"Reliability diagram of {title}"), title, width=SIDE)


def marker_radius(count: int, most: int) -> float:
    """The radius of a bin's marker, so that its area is proportional to its number of samples."""
    return max(SMALLEST, LARGEST * math.sqrt(count / most))


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"{count:,} samples"


def confidence_figures(calibration: Mapping[str, Any]) -> list[Figure]:
    """For each net: the confidence of its right answers, beside that of its wrong answers."""
    return [confidence_figure(name, net["test"]["confidence"]) for name, net in calibration.items()]


def confidence_figure(title: str, histogram: Mapping[str, Sequence[int]]) -> Figure:
    """Two histograms, each as shares of its own answers: there are far fewer wrong ones."""
    shares, legend = {}, []
    for outcome in ("right", "wrong"):
        total = sum(histogram[outcome])
        shares[outcome] = [100 * count / max(total, 1) for count in histogram[outcome]]
        legend.append((outcome, f"{outcome} ({total:,})"))
    highest = max(map(max, shares.values()))
    y_axis = linear_axis("share of them, %", [0, highest])
    plot = Plot(unit_axis("confidence"), y_axis, width=SIDE, height=190)
    num_bins = len(histogram["right"])
    for offset, (outcome, values) in enumerate(shares.items()):
        for i, share in enumerate(values):
            if not share:
                continue
            left = (i + 0.08 + 0.42 * offset) / num_bins
            between = f"confidence {i / num_bins:.2f} to {(i + 1) / num_bins:.2f}"
            words = f"{between}: {_samples(histogram[outcome][i])} {outcome}, {share:.1f} %"
            key = legend[offset][1]
            plot.bar(left, left + 0.42 / num_bins, share, outcome, words, key=key)
    label = f"Confidence of right and wrong answers of {title}"
    return Figure(plot.svg(label), title, legend, width=SIDE)


def risk_figure(calibration: Mapping[str, Any]) -> Figure:
    """Share of wrong answers if only the most confident samples are answered, for all nets."""
    curves = {name: net["test"]["risk_coverage"] for name, net in calibration.items()}
    highest = max(risk for curve in curves.values() for risk in curve["risk"])
    plot = Plot(
        unit_axis("coverage: share answered, most confident first"),
        linear_axis("risk: wrong answers, %", [0, 100 * highest]),
        width=WIDE, height=270,
    )  # fmt: skip
    for number, (name, curve) in enumerate(curves.items()):
        points = [(x, 100 * y) for x, y in zip(curve["coverage"], curve["risk"], strict=True)]
        words = f"{name}: {percent(curve['risk'][-1])} wrong if all samples are answered"
        plot.line(points, color(number), words, key=name)
    legend = [(color(number), name) for number, name in enumerate(curves)]
    title = "Risk against coverage"
    return Figure(plot.svg(title), title, legend, width=WIDE)
