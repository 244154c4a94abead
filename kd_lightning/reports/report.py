"""From directories to a report: records, tables in words, and what is to be drawn."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from kd_lightning.errors import UserError
from kd_lightning.reports.columns import default_columns, expand
from kd_lightning.reports.data_sets import Across, across, across_table, wilcoxon_table
from kd_lightning.reports.differences import Difference, accuracies, differences, pair_table
from kd_lightning.reports.grids import Grid, grid_of
from kd_lightning.reports.joining import join
from kd_lightning.reports.pairs import resolve
from kd_lightning.reports.sources import Source, read
from kd_lightning.reports.summary import main_table
from kd_lightning.reports.texts import Table, print_tables


@dataclass(frozen=True)
class Report:
    """All that is written and printed.

    Attributes:
        source: the records, and the settings that the report follows.
        tables: in words; tables of one name share their files.
        grids: the heat maps.
        diagrams: file name -> what is shown in a critical-difference diagram.
        differences: of the pairs.
        across: metrics over several data sets.
    """

    source: Source
    tables: Sequence[Table]
    grids: Sequence[Grid]
    diagrams: Mapping[str, Across]
    differences: Sequence[Difference]
    across: Sequence[Across]


def build(
    directories: Sequence[Path | str],
    columns: Sequence[str] | None = None,
    pairs: Sequence[Sequence[str]] | None = None,
) -> Report:
    """The report of one or more directories.

    Args:
        columns: instead of those that ``sweep.yaml`` names.
        pairs: beside those that ``sweep.yaml`` names.

    Raises:
        UserError: a directory without records, records that cannot be read or that are there
            twice, a column or a pair that is not there.
    """
    if not directories:
        raise UserError("expected the directory of a sweep, or of several, got none")
    source = join(read([Path(directory) for directory in directories]))
    of_preset = source.settings
    settings = {
        **of_preset,
        "columns": list(columns or of_preset.get("columns") or []) or None,
        "pairs": [*(of_preset.get("pairs") or []), *map(list, pairs or [])],
    }
    source = replace(source, settings=settings)
    records, keys, search = source.records, source.data_sets, bool(settings.get("search"))
    values = [record.values for record in records if record.values]
    notes: list[str] = []

    def known(names: Sequence[Any], find: Callable[[list], list]) -> list[Any]:
        """What is found of a preset's names: the sweep may have been narrowed since."""
        found = []
        for name in names:
            try:
                found += find([name])
            except UserError as error:
                notes.append(f"Left out: {error}.")
        return list(dict.fromkeys(found))

    if columns:
        shown = expand(columns, values)
    else:
        shown = known(of_preset.get("columns") or [], lambda names: expand(names, values))
        shown = shown or default_columns(values)
    found = known(of_preset.get("pairs") or [], lambda names: resolve(names, records, keys))
    found = list(dict.fromkeys([*found, *resolve(pairs or [], records, keys)]))
    tested = accuracies(shown, records)
    compared = differences(found, tested, records, keys)

    tables, grids = [], []
    names = list(dict.fromkeys(record.data_set(keys) for record in records))
    for name in names:
        of_it = [record for record in records if record.data_set(keys) == name]
        title = source.title if len(names) == 1 else f"{source.title}: {name}"
        tables.append(main_table(title, of_it, shown, search))
        grid = grid_of(title, of_it, keys, _file("heatmap", name if len(names) > 1 else ""), search)
        grids += [grid] * (grid is not None)
    if notes:
        tables[-1] = replace(tables[-1], notes=[*tables[-1].notes, *notes])
    if grids and not find_spec("matplotlib"):
        note = "No heat map: it needs matplotlib, pip install kd_lightning[stats]."
        tables[-1] = replace(tables[-1], notes=[*tables[-1].notes, note])
    if found:
        tables.append(pair_table(found, compared))
    diagrams: dict[str, Across] = {}
    over = across(tested, records, keys) if len(names) > 1 and not search else []
    if over:
        for one in over:
            file = _file("critical_difference", one.column.split("/")[1])
            can_be_drawn = one.can_be_tested and one.friedman() is not None
            if can_be_drawn and find_spec("scikit_posthocs"):
                diagrams[file] = one
            tables.append(across_table(one, _on_diagram(file) if can_be_drawn else None))
        if found:
            tables.append(wilcoxon_table(compared))
    return Report(source, tables, grids, diagrams, compared, over)


def _on_diagram(file: str) -> str:
    if find_spec("scikit_posthocs"):
        return (
            f"Critical-difference diagram: {file}; a bar joins what the test does not tell apart."
        )
    return (
        "No critical-difference diagram: it needs scikit-posthocs, pip install kd_lightning[stats]."
    )


def _file(stem: str, name: str) -> str:
    return "-".join(filter(None, [stem, re.sub(r"[^\w.-]+", "-", name).strip("-")])) + ".png"


def print_report(report: Report, console: Console) -> None:
    """Prints all tables."""
    print_tables(report.tables, console)
