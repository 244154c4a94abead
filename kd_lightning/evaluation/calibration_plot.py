"""The plot of ``calibration.json``: a reliability diagram, and risk against coverage."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kd_lightning.base.words import for_plot

DIAGONAL = {"color": "0.6", "linewidth": 0.8, "zorder": 0}


def draw(report: Mapping[str, Any]) -> Figure:
    """The figure; it needs no display. Each net has a colour; its temperature-scaled curve is
    dashed.
    """
    figure = Figure(figsize=(10.0, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for number, (name, net) in enumerate(report.items()):
        color = f"C{number % 10}"
        _draw_net(left, right, net["test"], name, color=color)
        if "scaled" in net:
            label = f"{name}, T = {net['temperature']:.2f}"
            _draw_net(left, right, net["scaled"], label, color=color, linestyle="--")
    left.plot([0, 1], [0, 1], **DIAGONAL)
    left.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    left.set_xlabel("confidence (15 bins of equal width)", fontsize=9)
    left.set_ylabel("accuracy", fontsize=9)
    right.set(xlim=(0, 1))
    right.set_ylim(bottom=0)
    right.set_xlabel("coverage: share of samples answered, most confident first", fontsize=9)
    right.set_ylabel("risk: share of answers that are wrong", fontsize=9)
    for ax in (left, right):
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", fontsize=7, frameon=False)
    return figure


def _draw_net(left: Axes, right: Axes, curves: Mapping[str, Any], name: str, **style: Any) -> None:
    bins = curves["reliability"]
    filled = [i for i, count in enumerate(bins["count"]) if count]
    left.plot(
        [bins["confidence"][i] for i in filled],
        [bins["accuracy"][i] for i in filled],
        **{"marker": "o", "markersize": 3, "linewidth": 1, "label": for_plot(name), **style},
    )
    curve = curves["risk_coverage"]
    right.plot(curve["coverage"], curve["risk"], **{"linewidth": 1, **style})
