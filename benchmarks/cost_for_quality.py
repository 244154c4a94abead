"""Test accuracy against the cost of the training, for the systems of ``sweep=zoo``.

    python -m benchmarks.cost_for_quality            print the table
    python -m benchmarks.cost_for_quality --write    also benchmarks/results/cost_for_quality.md and
                                                     docs/pictures/cost_for_quality.svg

Nothing is measured here: accuracies are those of the studies ``zoo`` (equal numbers of images) and
``zoo_equal_time``, costs those of ``zoo_cost``. The unit of a cost is an epoch of plain KD. A
teacher's training is counted or not; if not, what it costs more than the usual one still counts.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks import equal_time
from benchmarks.pictures import FOLDER, save
from benchmarks.report import RESULTS
from benchmarks.training_costs import FLOPS, KD, LABELS, STUDY_EPOCHS, TIME, costs
from kd_lightning.base.files import write_text
from kd_lightning.base.tables import Table, markdown
from kd_lightning.reports.formats import format_interval, format_points

TABLE = RESULTS / "cost_for_quality.md"
PICTURE = FOLDER / "cost_for_quality.svg"
ACCURACY = "test/student/accuracy"
EQUAL_IMAGES, EQUAL_TIME = "zoo", "zoo_equal_time"
MARKERS = {EQUAL_IMAGES: "o", EQUAL_TIME: "s"}
STUDIES = {EQUAL_IMAGES: "equal images", EQUAL_TIME: "equal time"}
TICKS = (5, 10, 20, 40, 80)
# (unit, whether the teacher's training is counted) -> heading of the column, and of the panel
KINDS = {
    (TIME, False): "time",
    (TIME, True): "time, with the teacher's",
    (FLOPS, False): "FLOPs",
    (FLOPS, True): "FLOPs, with the teacher's",
}
HEADS = (
    *("system", "study", "epochs"),
    *KINDS.values(),
    *("test accuracy %", "minus KD", "95 % interval"),
)
NOTES = (
    "Costs are in epochs of plain KD. Without the teacher's training, only what a teacher costs "
    "more than the usual one is counted.",
    "Accuracy: mean ± standard deviation over the seeds. Minus KD: in points, paired by seed, "
    "with KD of the same study.",
    "\\* No other row that costs no more has a higher mean accuracy. With few seeds such a row "
    "need not be better than its neighbours.",
    "Made by `python -m benchmarks.cost_for_quality --write` from the tables in "
    "[zoo](zoo), [zoo_equal_time](zoo_equal_time) and [zoo_cost.md](zoo_cost.md).",
)


@dataclass(frozen=True)
class Point:
    """A system in one study.

    Attributes:
        name: of the system.
        study: ``EQUAL_IMAGES`` or ``EQUAL_TIME``.
        epochs: of the student.
        costs: one for each of ``KINDS``, in epochs of plain KD.
        mean, std: of the test accuracy over the seeds, shares.
        minus_kd: difference to KD and its 95 % interval, shares; None for KD.
    """

    name: str
    study: str
    epochs: int
    costs: Mapping[tuple[str, bool], float]
    mean: float
    std: float
    minus_kd: tuple[float, float, float] | None


def points(results: Path = RESULTS) -> list[Point]:
    """Those systems of both studies that ``zoo_equal_time`` has, in its order."""
    return [*_points(results, EQUAL_IMAGES), *_points(results, EQUAL_TIME)]


def _points(results: Path, study: str) -> Iterator[Point]:
    epochs = equal_time.epochs(results / "zoo_cost.md")
    known = {unit: costs(unit, results / "zoo_cost.md") for unit in (TIME, FLOPS)}
    chosen = list(_accuracies(results / EQUAL_TIME))
    differences = _minus_kd(results / study)
    for name, (mean, std) in _accuracies(results / study).items():
        if name in chosen:
            count = STUDY_EPOCHS if study == EQUAL_IMAGES else epochs[name]
            # the row that has the teacher's time too is trained as labels only are
            system = LABELS if name == equal_time.WITH_TEACHERS_TIME else name
            cost = {
                (unit, counted): known[unit][system].of_training(count, with_teacher=counted)
                for unit, counted in KINDS
            }
            yield Point(name, study, count, cost, mean, std, differences.get(name))


def _accuracies(folder: Path) -> dict[str, tuple[float, float]]:
    return {
        row["variant"]: (float(row["mean"]), float(row["std"] or "nan"))
        for row in _rows(folder / "table.csv")
        if f"{row['split']}/{row['net']}/{row['metric']}" == ACCURACY
    }


def _minus_kd(folder: Path) -> dict[str, tuple[float, float, float]]:
    found = {}
    for row in _rows(folder / "pairs.csv"):
        if row["column"] == ACCURACY and KD in (row["a"], row["b"]):
            low, high, mean = (float(row[name] or "nan") for name in ("low", "high", "difference"))
            other = row["a"] if row["b"] == KD else row["b"]
            found[other] = (mean, low, high) if row["b"] == KD else (-mean, -high, -low)
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def front(found: Sequence[Point], kind: tuple[str, bool]) -> list[Point]:
    """The points that are more accurate than all that cost no more, the cheapest first."""
    best: list[Point] = []
    for point in sorted(found, key=lambda point: (point.costs[kind], -point.mean)):
        if not best or point.mean > best[-1].mean:
            best.append(point)
    return best


def table(found: Sequence[Point]) -> Table:
    """A row for each point."""
    fronts = {kind: front(found, kind) for kind in KINDS}
    rows = [
        [
            point.name, STUDIES[point.study], str(point.epochs),
            *(f"{point.costs[kind]:.1f}{'*' * (point in fronts[kind])}" for kind in KINDS),
            f"{100 * point.mean:.2f} ± {100 * point.std:.2f}",
            *_difference(point.minus_kd),
        ]
        for point in found
    ]  # fmt: skip
    return Table("cost_for_quality", "Accuracy for the cost of training", HEADS, rows, NOTES)


def _difference(minus_kd: tuple[float, float, float] | None) -> tuple[str, str]:
    if minus_kd is None:
        return "", ""
    mean, low, high = minus_kd
    return format_points(mean), format_interval("accuracy", (low, high))


def draw(found: Sequence[Point]) -> Figure:
    """A panel for each kind of cost; a color for each system (after ten they come again, hollow), a
    marker for each study.
    """
    figure = Figure(figsize=(10.0, 8.0), layout="constrained")
    FigureCanvasSVG(figure)
    colors = {name: f"C{i % 10}" for i, name in enumerate(dict.fromkeys(p.name for p in found))}
    for ax, kind in zip(figure.subplots(2, 2, sharey=True).flat, KINDS, strict=True):
        _draw_panel(ax, found, kind, colors)
    for name, color in colors.items():
        hollow = list(colors).index(name) >= len(set(colors.values()))
        fill = "none" if hollow else "full"
        ax.plot([], [], color=color, marker="D", fillstyle=fill, linestyle="", label=name)
    for study, marker in MARKERS.items():
        ax.plot([], [], color="0.4", marker=marker, linestyle="", label=STUDIES[study])
    ax.plot([], [], color="0.6", linewidth=0.8, label="nothing cheaper is as accurate")
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    return figure


def _draw_panel(
    ax: Axes, found: Sequence[Point], kind: tuple[str, bool], colors: Mapping[str, str]
) -> None:
    names = list(colors)
    for point in found:
        hollow = names.index(point.name) >= len(set(colors.values()))
        ax.errorbar(
            point.costs[kind], 100 * point.mean, yerr=100 * point.std, color=colors[point.name],
            marker=MARKERS[point.study], markersize=6, fillstyle="none" if hollow else "full",
            elinewidth=0.6, linestyle="",
        )  # fmt: skip
    best = front(found, kind)
    ax.plot(
        [point.costs[kind] for point in best], [100 * point.mean for point in best],
        color="0.6", linewidth=0.8, zorder=0,
    )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xticks(TICKS, [str(tick) for tick in TICKS], minor=False)
    ax.set_xticks([], minor=True)
    ax.set_xlabel(f"{KINDS[kind]}, epochs of KD", fontsize=9)
    ax.set_ylabel("test accuracy, %", fontsize=9)
    ax.tick_params(labelsize=8, which="both")
    ax.spines[["top", "right"]].set_visible(False)


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost_for_quality", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--write", action="store_true", help="also write the files to commit")
    arguments = parser.parse_args(words)
    found = points()
    text = markdown(table(found), level=1, escape_markup=False)
    print(text)
    if arguments.write:
        write_text(TABLE, text)
        save(draw(found), PICTURE)


if __name__ == "__main__":
    main()
