"""From directories to a report: records, tables in words, and what is to be drawn."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from kd_lightning.base.errors import UserError
from kd_lightning.base.tables import Table, print_tables
from kd_lightning.reports.columns import default_columns, expand
from kd_lightning.reports.data_sets import MOST, Across, across, across_table, wilcoxon_table
from kd_lightning.reports.differences import Difference, accuracies, differences, pair_table
from kd_lightning.reports.grids import Grid, grid_of
from kd_lightning.reports.join import join
from kd_lightning.reports.pairs import resolve
from kd_lightning.reports.provenance import sentences as made_in_words
from kd_lightning.reports.published import Published, is_over, left_out, sentences
from kd_lightning.reports.published import read as read_reported
from kd_lightning.reports.sources import Source, read
from kd_lightning.reports.summary import main_table, missing


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
        reported: what papers report of one data set.
    """

    source: Source
    tables: Sequence[Table]
    grids: Sequence[Grid]
    diagrams: Mapping[str, Across]
    differences: Sequence[Difference]
    across: Sequence[Across]
    reported: Sequence[Published] = ()


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
    reported = read_reported(of_preset.get("reported") or [])
    notes += left_out(reported, records, keys)
    notes += made_in_words(settings.get("made") or [])
    of_means = [one for one in reported if is_over(one, records, keys)]
    reported = [one for one in reported if one.mean_over is None]

    tables, grids = [], []
    names = list(dict.fromkeys(record.data_set(keys) for record in records))
    for name in names:
        of_it = [record for record in records if record.data_set(keys) == name]
        title = source.title if len(names) == 1 else f"{source.title}: {name}"
        tables.append(main_table(title, of_it, shown, search, reported))
        grid = grid_of(title, of_it, keys, _file("heatmap", name if len(names) > 1 else ""), search)
        grids += [grid] * (grid is not None)
    if grids and not find_spec("matplotlib"):
        notes.append("No heat map: it needs matplotlib, pip install kd_lightning[stats].")
    over = across(tested, records, keys, of_means) if len(names) > 1 and not search else []
    are_many = bool(over) and len(names) > MOST
    if not are_many:
        tables[-1] = replace(tables[-1], notes=[*tables[-1].notes, *notes])
    if found:
        tables.append(pair_table(found, compared))
    diagrams: dict[str, Across] = {}
    if over:
        for one in over:
            file = _file("critical_difference", one.column.split("/")[1])
            can_be_drawn = one.can_be_tested and one.friedman() is not None
            if can_be_drawn and find_spec("scikit_posthocs"):
                diagrams[file] = one
            said = sentences(of_means, records, [one.column])
            if are_many:  # in a terminal their own tables, with notes of their own, are left out
                said += [*missing(records, search), *notes]
            tables.append(across_table(one, _on_diagram(file) if can_be_drawn else None, said))
        if found:
            tables.append(wilcoxon_table(compared))
    if are_many:
        tables.sort(key=lambda table: table.name != "data_sets")
    return Report(source, tables, grids, diagrams, compared, over, reported)


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
    """Prints the tables; where data sets are many, those over all of them alone."""
    tables = report.tables
    if report.across and len(report.across[0].data_sets) > MOST:
        tables = [table for table in tables if table.name == "data_sets"]
    print_tables(tables, console)
