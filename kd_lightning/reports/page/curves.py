"""Charts of the training: val accuracy, NLL, loss terms and learning rate over the epochs."""

import math
from collections.abc import Mapping, Sequence

from kd_lightning.reports.page.blocks import Figure
from kd_lightning.reports.page.plot import Plot, Point, color
from kd_lightning.reports.page.records import Rows, RunRecord
from kd_lightning.reports.page.scales import linear_axis, log_axis, short

MAX_POINTS = 150  # of a line
MAX_DOTS = 40  # a line with more points has no dot for each
LOG_FROM = 50  # a loss whose largest value is this many times its smallest has a logarithmic axis
MAX_NAMES = 20  # of rows in a legend
WIDE = 820

Lines = Mapping[str, Sequence[Point]]


def thinned(points: Sequence[Point], keep: float | None = None) -> list[Point]:
    """At most ``MAX_POINTS`` of the points, at equal distances, with the first and the last.

    Args:
        keep: the x of one that stays beside them.
    """
    if len(points) <= MAX_POINTS:
        return list(points)
    last = len(points) - 1
    some = {round(i * last / (MAX_POINTS - 1)) for i in range(MAX_POINTS)}
    return [point for i, point in enumerate(points) if i in some or point[0] == keep]


def points_of(rows: Rows, column: str, *, x: str = "epoch", scale: float = 1.0) -> list[Point]:
    """(x, value) of each row that has both, and a finite value."""
    pairs = [(row[x], scale * row[column]) for row in rows if x in row and column in row]
    return [pair for pair in pairs if all(map(math.isfinite, pair))]


def curve_figures(record: RunRecord) -> list[Figure]:
    """The charts of one run; [] if it has no ``epochs.csv``."""
    rows, students = record.epochs, record.students
    accuracy = {key: points_of(rows, f"val/{key}/accuracy", scale=100) for key in students}
    nll = {key: points_of(rows, f"val/{key}/nll") for key in students}
    rates = {key: points_of(record.steps, f"lr/{key}", x="step") for key in students}
    chosen = {
        key: record.metrics["nets"][key].get("epoch") for key in students if accuracy.get(key)
    }
    figures = [
        line_figure("Val accuracy", accuracy, "epoch", "accuracy on val, %", chosen),
        line_figure("Val NLL", nll, "epoch", "NLL on val, nats", chosen),
    ]
    for key in students:
        prefix = f"train/{key}/"
        terms = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
        lines = {name.removeprefix(prefix): points_of(rows, name) for name in terms}
        figures.append(line_figure(f"Training of {key}", lines, "epoch", "loss terms"))
    figures.append(line_figure("Learning rate", rates, "optimizer step", "learning rate"))
    return [figure for figure in figures if figure is not None]


def line_figure(
    title: str,
    lines: Lines,
    x_label: str,
    y_label: str,
    chosen: Mapping[str, float | None] | None = None,
) -> Figure | None:
    """A chart with a line for each name; None if there is nothing to draw.

    Args:
        chosen: name -> the x of the point that has a ring.
    """
    chosen = chosen or {}
    lines = {name: thinned(points, chosen.get(name)) for name, points in lines.items() if points}
    if not lines:
        return None
    values = [y for points in lines.values() for _, y in points]
    positive = min(values) > 0
    is_log = positive and max(values) > LOG_FROM * min(values)
    x_axis = linear_axis(x_label, [x for points in lines.values() for x, _ in points])
    plot = Plot(x_axis, (log_axis if is_log else linear_axis)(y_label, values))
    for number, (name, points) in enumerate(lines.items()):
        plot.line(points, color(number), f"{name}: {short(points[-1][1])} at the end", key=name)
        if len(points) <= MAX_DOTS:
            for x, y in points:
                title_of_dot = f"{name}, {x_label} {short(x)}: {short(y)}"
                plot.dot((x, y), f"{color(number)} small", title_of_dot, radius=1.8, key=name)
        for x, y in points:
            if x == chosen.get(name):
                title_of_ring = f"{name}: chosen on val, {x_label} {short(x)}, {short(y)}"
                plot.dot((x, y), f"{color(number)} ring", title_of_ring, radius=5.5, key=name)
    legend = [(color(number), name) for number, name in enumerate(lines)]
    note = "Ring: the epoch that val chose." if any(chosen) else ""
    return Figure(plot.svg(f"{title}: {y_label} by {x_label}"), title, legend, note)


def overview_figure(records: Sequence[RunRecord]) -> Figure | None:
    """Val accuracy of several runs, a color for each row; None without epochs."""
    curves = [(record, points_of(record.epochs, "val/accuracy", scale=100)) for record in records]
    lines = [(record, thinned(points)) for record, points in curves if points]
    best = [max(y for _, y in points) for _, points in curves if points]
    if not lines:
        return None
    variants = list(dict.fromkeys(record.row for record, _ in lines))
    plot = Plot(
        linear_axis("epoch", [x for _, points in lines for x, _ in points]),
        linear_axis("accuracy on val, mean of the students, %",
                    [y for _, points in lines for _, y in points]),
        width=WIDE, height=320,
    )  # fmt: skip
    for (record, points), highest in zip(lines, best, strict=True):
        variant = record.row
        title = f"{record.name}: best {highest:.2f} %"
        plot.line(points, f"{color(variants.index(variant))} thin", title, key=variant)
    legend = [(color(number), name) for number, name in enumerate(variants)]
    if len(legend) > MAX_NAMES:
        legend = []
    title = f"Val accuracy of {len(lines)} runs"
    note = "A line is a run; the pointer shows its name."
    return Figure(plot.svg(title), title, legend, note, WIDE)
