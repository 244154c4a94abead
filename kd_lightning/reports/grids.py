"""What a heat map shows: two numeric axes of a sweep, and a number with its spread in each cell."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kd_lightning.records.jobs import State
from kd_lightning.reports.columns import OBJECTIVE, students_of
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.statistics import Sample


@dataclass(frozen=True)
class Cell:
    """One pair of values.

    Attributes:
        sample: the number under several seeds.
        planned: jobs that were to give it.
        states: of the jobs that did not, in words.
    """

    sample: Sample
    planned: int
    states: tuple[str, ...]


@dataclass(frozen=True)
class Panel:
    """One map: all cells that agree in the further axes, by (x, y)."""

    title: str
    cells: dict[tuple[Any, Any], Cell]


@dataclass(frozen=True)
class Grid:
    """Maps with the same axes.

    Attributes:
        name: of the file.
        title: above the maps.
        quantity: what the number is.
        x: the key of the first axis; its values, in order, are ``xs``.
        y: the key of the second; its values, in order, are ``ys``.
        panels: one for each combination of the further axes.
        chooses: whether the number is what chooses: that of val.
    """

    name: str
    title: str
    quantity: str
    x: str
    y: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    panels: tuple[Panel, ...]
    chooses: bool


def grid_of(
    title: str, records: Sequence[JobResult], data_sets: Sequence[str], name: str, search: bool
) -> Grid | None:
    """The grid of one data set's records; None where there are no two numeric axes, or where a
    search has only tried some of their combinations.
    """
    cells = [record.cell(data_sets) for record in records]
    keys = list(dict.fromkeys(key for cell in cells for key in cell))
    numeric = [key for key in keys if _is_numeric([cell[key] for cell in cells if key in cell])]
    if len(numeric) < 2:
        return None
    x, y = numeric[:2]
    placed = [(r, cell) for r, cell in zip(records, cells, strict=True) if x in cell and y in cell]
    xs, ys = (tuple(sorted({cell[key] for _, cell in placed})) for key in (x, y))
    if not placed:
        return None
    there = {(cell[x], cell[y]) for _, cell in placed}
    if search and there != set(itertools.product(xs, ys)):
        return None
    columns, quantity, chooses = _quantity(records)
    panels: dict[str, dict[tuple[Any, Any], list[JobResult]]] = {}
    for record, cell in placed:
        rest = ", ".join(f"{key}={value}" for key, value in cell.items() if key not in (x, y))
        panels.setdefault(rest, {}).setdefault((cell[x], cell[y]), []).append(record)
    drawn = tuple(
        Panel(rest, {place: _cell(group, columns) for place, group in cells_of.items()})
        for rest, cells_of in panels.items()
    )
    return Grid(name, title, quantity, x, y, xs, ys, drawn, chooses)


def _is_numeric(values: Sequence[Any]) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and len(set(values)) > 1


def _quantity(records: Sequence[JobResult]) -> tuple[list[str], str, bool]:
    """The columns whose mean is shown, what that is called, and whether it chooses."""
    done = [record.values for record in records if record.values]
    if all(OBJECTIVE in values for values in done):
        return [OBJECTIVE], "val accuracy of the chosen weights, %", True
    columns = [f"last/{name}/accuracy" for name in students_of(done)]
    of_whom = "" if len(columns) == 1 else ", mean of the students"
    return columns, f"test accuracy of the last epoch{of_whom}, %", False


def _cell(records: Sequence[JobResult], columns: Sequence[str]) -> Cell:
    values = []
    for record in records:
        found = [record.values[column] for column in columns if column in record.values]
        if found:
            values.append(sum(found) / len(found))
    states = (str(record.state) for record in records if record.state != State.DONE)
    return Cell(Sample(tuple(values)), len(records), tuple(dict.fromkeys(states)))
