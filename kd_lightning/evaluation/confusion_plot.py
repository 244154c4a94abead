"""The picture of a confusion matrix, for two to many hundreds of classes."""

from collections.abc import Sequence

from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from kd_lightning.base.words import cut, for_plot

MOST_WITH_NUMBERS = 20  # classes up to which the cells hold numbers
MOST_WITH_NAMES = 120  # classes up to which every class is named
LONGEST_NAME = 24  # characters


def draw(matrix: Int[Tensor, "C C"], class_names: Sequence[str], title: str) -> Figure:
    """The figure; it needs no display.

    A row is a class, a column a predicted class. The colour is the share of the row, so classes
    with few samples can be read too; the numbers are counts.
    """
    count = len(class_names)
    side = min(20.0, max(4.5, 2.5 + (0.45 if count <= MOST_WITH_NUMBERS else 0.15) * count))
    figure = Figure(figsize=(side + 1, side), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    shares = (matrix.double() / matrix.sum(1, keepdim=True).clamp_min(1)).numpy()
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=ax, shrink=0.7).set_label("share of the class", fontsize=9)
    ax.set_title(for_plot(title), fontsize=10)
    ax.set_xlabel("predicted class", fontsize=9)
    ax.set_ylabel("class", fontsize=9)
    if count <= MOST_WITH_NAMES:
        _name_classes(ax, class_names)
    if count <= MOST_WITH_NUMBERS:
        _write_counts(ax, matrix, shares)
    return figure


def _name_classes(ax: Axes, class_names: Sequence[str]) -> None:
    size = 8 if len(class_names) <= MOST_WITH_NUMBERS else 5
    names = [for_plot(cut(name, LONGEST_NAME)) for name in class_names]
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    ax.set_yticks(range(len(names)), names, fontsize=size)


def _write_counts(ax: Axes, matrix: Tensor, shares) -> None:
    for i, row in enumerate(matrix.tolist()):
        for j, number in enumerate(row):
            if number:
                color = "white" if shares[i, j] > 0.5 else "black"
                ax.text(j, i, str(number), ha="center", va="center", fontsize=7, color=color)
