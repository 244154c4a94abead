"""Collects the numbers of a heat map: two numeric axes of a sweep, and a sample for each cell."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kd_lightning.records.jobs import State
from kd_lightning.reports.columns import OBJECTIVE, split, students_of
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.statistics import Sample
from kd_lightning.reports.summary import best_row, rows_of


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map: the jobs with one value of each axis.

    Attributes:
        sample: the number under several seeds.
        planned: how many jobs the cell has.
        states: the states of the jobs that are not done.
        is_best: whether it holds the row that is best on val.
    """

    sample: Sample
    planned: int
    states: tuple[str, ...]
    is_best: bool = False


@dataclass(frozen=True)
class Panel:
    """One heat map: its cells by (x, y). They all agree in the other axes."""

    title: str
    cells: dict[tuple[Any, Any], Cell]


@dataclass(frozen=True)
class Grid:
    """Heat maps with the same two axes, drawn into one file.

    Attributes:
        name: of the file.
        title: above the maps.
        quantity: what the numbers are.
        x: the key of the horizontal axis; its sorted values are ``xs``.
        y: the key of the vertical axis; its sorted values are ``ys``.
        panels: one for each combination of the other axes.
        is_objective: whether the numbers are the validation accuracies that choose the best cell.
    """

    name: str
    title: str
    quantity: str
    x: str
    y: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    panels: tuple[Panel, ...]
    is_objective: bool


def grid_of(
    title: str,
    results: Sequence[JobResult],
    data_sets: Sequence[str],
    name: str,
    search: bool,
    chosen_by: str = OBJECTIVE,
) -> Grid | None:
    """The grid of the results on one data set.

    None if fewer than two axes are numeric, or if a search has not tried all combinations.
    """
    settings = [result.settings(data_sets) for result in results]
    keys = list(dict.fromkeys(key for axes in settings for key in axes))
    numeric = [key for key in keys if _is_numeric([axes[key] for axes in settings if key in axes])]
    if len(numeric) < 2:
        return None
    x, y = numeric[:2]
    placed = [
        (result, axes)
        for result, axes in zip(results, settings, strict=True)
        if x in axes and y in axes
    ]
    xs, ys = (tuple(sorted({axes[key] for _, axes in placed})) for key in (x, y))
    if not placed:
        return None
    tried = {(axes[x], axes[y]) for _, axes in placed}
    if search and tried != set(itertools.product(xs, ys)):
        return None
    columns, quantity, is_objective = _quantity(results, chosen_by)
    groups: dict[str, dict[tuple[Any, Any], list[JobResult]]] = {}
    for result, axes in placed:
        rest = ", ".join(f"{key}={value}" for key, value in axes.items() if key not in (x, y))
        groups.setdefault(rest, {}).setdefault((axes[x], axes[y]), []).append(result)
    row = best_row(rows_of(results, search), chosen_by) if is_objective else None
    best = [] if row is None else row.results
    panels = tuple(
        Panel(rest, {place: _cell(group, columns, best) for place, group in cells.items()})
        for rest, cells in groups.items()
    )
    return Grid(name, title, quantity, x, y, xs, ys, panels, is_objective)


def _is_numeric(values: Sequence[Any]) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and len(set(values)) > 1


def _quantity(results: Sequence[JobResult], chosen_by: str) -> tuple[list[str], str, bool]:
    """The columns whose mean is shown, the name of this mean, and whether it chooses rows."""
    done = [result.values for result in results if result.values]
    if all(chosen_by in values for values in done):
        metric = split(chosen_by)[2].replace("_", " ")
        return [chosen_by], f"val {metric} of the chosen weights, %", True
    columns = [f"last/{name}/accuracy" for name in students_of(done)]
    mean_of = "" if len(columns) == 1 else ", mean of the students"
    return columns, f"test accuracy of the last epoch{mean_of}, %", False


def _cell(results: Sequence[JobResult], columns: Sequence[str], best: Sequence[JobResult]) -> Cell:
    values = []
    for result in results:
        numbers = [result.values[column] for column in columns if column in result.values]
        if numbers:
            values.append(sum(numbers) / len(numbers))
    states = (str(result.state) for result in results if result.state != State.DONE)
    is_best = any(result is other for result in results for other in best)
    return Cell(Sample(tuple(values)), len(results), tuple(dict.fromkeys(states)), is_best)


def best_cell(grid: Grid) -> Cell | None:
    """The cell of the row that the table marks as the best on val; None without one."""
    cells = [cell for panel in grid.panels for cell in panel.cells.values()]
    return next((cell for cell in cells if cell.is_best), None)


def cell_text(cell: Cell | None) -> str:
    """The text in a cell."""
    if cell is None:
        return "no job"
    if not cell.sample.n:
        return "\n".join(cell.states)
    lines = [f"{100 * cell.sample.mean:.2f}"]
    if cell.sample.n > 1:
        lines.append(f"± {100 * cell.sample.std:.2f}")
    if cell.sample.n < cell.planned:
        lines.append(f"n = {cell.sample.n} of {cell.planned}")
    return "\n".join(lines)
