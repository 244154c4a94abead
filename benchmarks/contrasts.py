"""Pictures of what the studies of the two papers found: differences with their intervals.

    python -m benchmarks.contrasts       docs/pictures/dual_student.svg,
                                         docs/pictures/stochastic_self_distillation.svg and
                                         docs/pictures/fine_tuning.svg

Nothing is measured here: the numbers are those of the committed tables.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.pictures import FOLDER, save
from benchmarks.report import RESULTS
from kd_lightning.reports.statistics import Sample

# heading of a panel -> part of a study
DUAL_PARTS = {
    "digits": "dual_digits/all_labels",
    "digits, 40 % wrong labels,\nin val too": "dual_digits/40_percent_noise",
    "digits, 40 % wrong labels,\nnot in val": "dual_digits/40_percent_noise_clean_val",
    "Fashion-MNIST, 8,000": "dual_fashion/8000_images",
    "Fashion-MNIST, declared,\n7,200": "dual_contrasts",
    "Fashion-MNIST,\n40 % wrong, in val too": "dual_fashion/40_percent_noise",
    "Fashion-MNIST, declared,\n40 % wrong, not in val": "dual_contrasts_noise",
}
DUAL_PAIRS = (
    ("kd", "labels only"),
    ("kd + confidence", "kd"),
    ("kd + confidence (mean 1)", "kd"),
    ("kd + peer", "kd"),
    ("dual_student", "kd"),
    ("dual_student (mean 1)", "kd"),
)
WEIGHTS = {"test": "chosen on val", "last": "last epoch"}
STUDENTS = ("a", "b")

SSD_STUDIES = {
    "ssd_resamples": "declared, ten resamples",
    "ssd_ucr": "fully trained teachers",
    "ssd_ucr_early": "teachers stopped early",
}
SSD_PAIRS = {  # pair -> the studies that have it
    ("SSD", "continue training"): tuple(SSD_STUDIES),
    ("SSD", "deterministic feature"): tuple(SSD_STUDIES),
    ("SSD", "wrong guidance"): ("ssd_resamples",),
    ("SSD", "random pass"): tuple(SSD_STUDIES),
    ("SSD", "labels only"): ("ssd_ucr", "ssd_ucr_early"),
}
# Its intervals of a single set, corrected for what resamples share, are wider than the picture.
ONLY_MEANS = ("ssd_resamples",)
MEAN = "mean of the sets"

FINETUNED = "ssd_finetune"
FINETUNED_PAIRS = {  # other row -> whether the contrast was declared
    "continue training": True,
    "mean of passes": True,
    "wrong guidance": True,
    "deterministic feature": True,
    "random pass": False,
    "labels only, five nets": False,
    "R-Drop": False,
    "born-again": False,
}


class Interval(NamedTuple):
    """A mean difference in test accuracy, and its 95 % interval, in points."""

    mean: float
    low: float
    high: float


def differences(folder: Path, a: str, b: str, column: str) -> dict[str, Interval]:
    """Data set (or "") -> the difference of row ``a`` to row ``b`` in the tables of a folder."""
    with (folder / "pairs.csv").open(newline="") as file:
        return {
            row["data_set"]: Interval(
                *(100 * float(row[name]) for name in ("difference", "low", "high"))
            )
            for row in csv.DictReader(file)
            if (row["a"], row["b"], row["column"], row["column_b"]) == (a, b, column, column)
        }


def over_data_sets(found: Mapping[str, Interval]) -> Interval:
    """The mean over data sets, each counted once, with an interval for data sets like these."""
    sample = Sample(tuple(interval.mean for interval in found.values()))
    return Interval(sample.mean, *sample.interval())


def draw_dual(results: Path = RESULTS) -> Figure:
    """A panel for each part, a row for each pair, a color for each student."""
    parts = {head: results / name for head, name in DUAL_PARTS.items()}
    names = [f"{a} − {b}" for a, b in DUAL_PAIRS]
    figure = Figure(figsize=(17.0, 4.0), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(1, len(parts), sharey=True)
    for ax, (head, folder) in zip(panels, parts.items(), strict=True):
        _prepare(ax, head, names)
        for row, (a, b) in enumerate(DUAL_PAIRS):
            for place, (split, student) in _places(WEIGHTS, STUDENTS):
                for interval in differences(folder, a, b, f"{split}/{student}/accuracy").values():
                    _mark(ax, interval, row + place, f"C{student == 'b':d}", split == "test")
    for student in STUDENTS:
        for split, meaning in WEIGHTS.items():
            label = f"student {student}, {meaning}"
            _mark(panels[0], None, 0, f"C{student == 'b':d}", split == "test", label)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def draw_ssd(results: Path = RESULTS) -> Figure:
    """A panel for each pair, a row for each data set and their mean, a color for each study."""
    figure = Figure(figsize=(14.0, 4.4), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(1, len(SSD_PAIRS), sharey=True)
    for ax, ((a, b), studies) in zip(panels, SSD_PAIRS.items(), strict=True):
        found = {
            study: differences(results / study, a, b, "test/student/accuracy") for study in studies
        }
        names = sorted(set().union(*found.values()))
        _prepare(ax, f"{a} − {b}", [*names, MEAN])
        ax.axhline(len(names) - 0.5, color="0.85", linewidth=0.8)
        for place, (study,) in _places(studies):
            color = f"C{list(SSD_STUDIES).index(study)}"
            for name, interval in {**found[study], MEAN: over_data_sets(found[study])}.items():
                if study in ONLY_MEANS and name != MEAN:
                    interval = Interval(interval.mean, interval.mean, interval.mean)
                _mark(ax, interval, [*names, MEAN].index(name) + place, color, name == MEAN)
    for i, meaning in enumerate(SSD_STUDIES.values()):
        _mark(panels[0], None, 0, f"C{i}", False, meaning)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def draw_finetuned(results: Path = RESULTS) -> Figure:
    """A row for each pair, a color for what was declared and for the rest."""
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    FigureCanvasSVG(figure)
    ax = figure.subplots()
    names = [f"SSD − {b.removesuffix(', five nets')}" for b in FINETUNED_PAIRS]
    _prepare(ax, "a pretrained net, fine-tuned on 1,000 images", names)
    for row, (b, declared) in enumerate(FINETUNED_PAIRS.items()):
        for place, (split,) in _places(WEIGHTS):
            color = "C0" if declared and split == "test" else "C1"
            found = differences(results / FINETUNED, "SSD", b, f"{split}/student/accuracy")
            for interval in found.values():
                _mark(ax, interval, row + place, color, split == "test")
    _mark(ax, None, 0, "C0", True, "declared, chosen on val")
    for split, meaning in WEIGHTS.items():
        _mark(ax, None, 0, "C1", split == "test", f"exploratory, {meaning}")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _places(*kinds: Sequence[str] | Mapping[str, str]) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Offsets inside of a row, for each combination of the kinds."""
    combinations: list[tuple[str, ...]] = [()]
    for kind in kinds:
        combinations = [(*known, new) for known in combinations for new in kind]
    for i, combination in enumerate(combinations):
        yield 0.16 * (i - (len(combinations) - 1) / 2), combination


def _prepare(ax: Axes, head: str, rows: Sequence[str]) -> None:
    ax.set_title(head, fontsize=9)
    ax.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("points of test accuracy", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def _mark(
    ax: Axes, interval: Interval | None, y: float, color: str, full: bool, label: str | None = None
) -> None:
    """Draws an interval; None: only the entry of the legend."""
    mean, low, high = interval or Interval(float("nan"), float("nan"), float("nan"))
    ax.errorbar(
        mean, y, xerr=[[mean - low], [high - mean]], color=color, marker="o", markersize=4,
        fillstyle="full" if full else "none", elinewidth=0.9, linestyle="", label=label,
    )  # fmt: skip


PICTURES = {
    "dual_student.svg": draw_dual,
    "stochastic_self_distillation.svg": draw_ssd,
    "fine_tuning.svg": draw_finetuned,
}


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contrasts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(words)
    for name, draw in PICTURES.items():
        save(draw(), FOLDER / name)
        print(f"Written: {FOLDER / name}")


if __name__ == "__main__":
    main()
