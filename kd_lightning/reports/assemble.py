"""Builds a report from the directories of sweeps or runs: tables, heat maps and diagrams."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from kd_lightning.base.errors import UserError
from kd_lightning.base.tables import Table, print_tables
from kd_lightning.reports.columns import OBJECTIVE, check_chooser, default_columns, expand
from kd_lightning.reports.contents import mixed_data
from kd_lightning.reports.data_sets import (
    MAX_COLUMNS,
    Comparison,
    compare_rows,
    comparison_table,
)
from kd_lightning.reports.differences import (
    Difference,
    check_compared,
    check_margin,
    check_primary_column,
    compare,
    tested_columns,
)
from kd_lightning.reports.grids import Grid, grid_of
from kd_lightning.reports.join import declared_seeds, join
from kd_lightning.reports.pair_tables import pair_table
from kd_lightning.reports.pairs import resolve
from kd_lightning.reports.pairs_over_data_sets import wilcoxon_table
from kd_lightning.reports.provenance import notes_on_origin
from kd_lightning.reports.published import (
    Published,
    is_mean_over,
    notes_on_omitted,
    notes_on_published,
    read_published,
)
from kd_lightning.reports.sources import Source, read
from kd_lightning.reports.summary import main_table, notes_on_missing


@dataclass(frozen=True)
class Report:
    """Everything that is printed and written.

    Attributes:
        source: the results of the jobs, and the settings of the report.
        tables: the tables as text; tables with the same name are written to the same file.
        grids: the data of the heat maps.
        diagrams: file name -> the comparison that this critical-difference diagram shows.
        differences: the paired differences.
        comparisons: one for each metric that is compared over several data sets.
        published: numbers from papers that belong to a single data set.
        columns: the columns of the main tables.
    """

    source: Source
    tables: Sequence[Table]
    grids: Sequence[Grid]
    diagrams: Mapping[str, Comparison]
    differences: Sequence[Difference]
    comparisons: Sequence[Comparison]
    published: Sequence[Published] = ()
    columns: Sequence[str] = ()


def build(
    directories: Sequence[Path | str],
    columns: Sequence[str] | None = None,
    pairs: Sequence[Sequence[str]] | None = None,
    margin: float | None = None,
    compared: Sequence[str] | None = None,
) -> Report:
    """Builds the report of one or more directories.

    Args:
        columns: used instead of the columns in ``sweep.yaml``.
        pairs: added to the pairs in ``sweep.yaml``.
        margin: of the equivalence test, in points of accuracy, instead of that in ``sweep.yaml``.
        compared: metrics in which the pairs are compared, instead of those in ``sweep.yaml``.

    Raises:
        UserError: a directory has no results, results cannot be read or occur twice, or a column,
            a metric or a pair does not exist.
    """
    if not directories:
        raise UserError("expected the directory of a sweep, or of several, got none")
    sources = read([Path(directory) for directory in directories])
    source = join(sources)
    mixed = mixed_data(source.results, source.data_sets)
    if mixed and (len(sources) > 1 or source.directory is None):
        raise UserError(
            f"{mixed}: report on them apart, or run them in one sweep that names them "
            "(data.root=<one>,<other> sweep.data_sets=[data.root])"
        )
    preset = source.settings
    settings = _settings(preset, columns, pairs, margin, compared)
    metrics = list(dict.fromkeys(settings.get("compared") or ["accuracy"]))
    chosen_by = settings.get("chosen_by") or OBJECTIVE
    source = replace(source, settings=settings)
    results, keys, search = source.results, source.data_sets, bool(settings.get("search"))
    values = [result.values for result in results if result.values]
    notes = [f"Warning: {mixed}: the files have changed while the sweep ran."] if mixed else []

    def existing(names: Sequence[Any], find: Callable[[list], list]) -> list[Any]:
        """Finds a preset's names. A name that does not exist becomes a note, not an error: the
        sweep may have been run with fewer variants than its preset has.
        """
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
        shown = existing(preset.get("columns") or [], lambda names: expand(names, values))
        shown = shown or default_columns(values)
    row_pairs = existing(preset.get("pairs") or [], lambda names: resolve(names, results, keys))
    row_pairs = list(dict.fromkeys([*row_pairs, *resolve(pairs or [], results, keys)]))
    if preset.get("primary"):
        primary = existing(preset["primary"], lambda names: resolve(names, results, keys))
        row_pairs = [replace(pair, exploratory=pair not in primary) for pair in row_pairs]
        row_pairs.sort(key=lambda pair: pair.exploratory)
    declared = len(declared_seeds(settings))
    column = settings.get("primary_column")
    paired = compare(row_pairs, metrics, shown, results, keys, column, declared)
    notes += [
        f"Left out: no run has test {metric} (compared)."
        for metric in metrics
        if metric not in paired
    ]
    published = read_published(preset.get("reported") or [])
    notes += notes_on_omitted(published, results, keys)
    notes += notes_on_origin(settings.get("made") or [])
    published_means = [entry for entry in published if is_mean_over(entry, results, keys)]
    published = [entry for entry in published if entry.mean_over is None]

    tables, grids = [], []
    names = list(dict.fromkeys(result.data_set(keys) for result in results))
    for name in names:
        selected = [result for result in results if result.data_set(keys) == name]
        title = source.title if len(names) == 1 else f"{source.title}: {name}"
        tables.append(main_table(title, selected, shown, search, published, chosen_by=chosen_by))
        file = _file_name("heatmap", name if len(names) > 1 else "")
        if file in {grid.name for grid in grids}:  # of names that differ in other signs alone
            file = _file_name("heatmap", f"{name} {len(grids) + 1}")
        grid = grid_of(title, selected, keys, file, search, chosen_by)
        grids += [grid] * (grid is not None)
    if grids and not find_spec("matplotlib"):
        notes.append("No heat map: matplotlib is not installed (pip install kd_lightning[stats]).")
    comparisons = []
    if len(names) > 1 and not search:
        ranked = tested_columns("accuracy", shown, results)
        comparisons = compare_rows(ranked, results, keys, published_means)
    many_data_sets = bool(comparisons) and len(names) > MAX_COLUMNS
    if not many_data_sets:
        tables[-1] = replace(tables[-1], notes=[*tables[-1].notes, *notes])
    margin = settings.get("margin")
    if row_pairs:
        tables += [pair_table(row_pairs, name, found, margin) for name, found in paired.items()]
    diagrams: dict[str, Comparison] = {}
    if comparisons:
        for comparison in comparisons:
            file = _file_name("critical_difference", comparison.column.split("/")[1])
            has_diagram = comparison.can_be_tested and comparison.friedman() is not None
            if has_diagram and find_spec("scikit_posthocs"):
                diagrams[file] = comparison
            further = notes_on_published(published_means, results, [comparison.column])
            if many_data_sets:  # the terminal shows only this table, so it carries all notes
                further += [*notes_on_missing(results, search), *notes]
            diagram = _note_on_diagram(file) if has_diagram else None
            tables.append(comparison_table(comparison, diagram, further))
        if row_pairs:
            tables += [wilcoxon_table(name, found, margin) for name, found in paired.items()]
    if many_data_sets:
        tables.sort(key=lambda table: table.name != "data_sets")
    every = [difference for found in paired.values() for difference in found]
    return Report(source, tables, grids, diagrams, every, comparisons, published, shown)


def _settings(
    preset: Mapping[str, Any],
    columns: Sequence[str] | None,
    pairs: Sequence[Sequence[str]] | None,
    margin: float | None,
    compared: Sequence[str] | None,
) -> dict[str, Any]:
    """The settings of ``sweep.yaml`` with those of the call; see ``build``."""
    settings = {
        **preset,
        "columns": list(columns or preset.get("columns") or []) or None,
        "pairs": [*(preset.get("pairs") or []), *map(list, pairs or [])],
    }
    if margin is not None:
        settings["margin"] = margin
    if compared:
        settings["compared"] = list(compared)
    check_margin(settings.get("margin"))
    compared = settings.get("compared") or ["accuracy"]
    check_compared(compared)
    check_primary_column(settings.get("primary_column"), compared)
    check_chooser(settings.get("chosen_by") or OBJECTIVE)
    return settings


def _note_on_diagram(file: str) -> str:
    if find_spec("scikit_posthocs"):
        return (
            f"Critical-difference diagram: {file}. A bar joins rows whose mean ranks do not differ "
            "significantly."
        )
    return (
        "No critical-difference diagram: scikit-posthocs is not installed "
        "(pip install kd_lightning[stats])."
    )


def _file_name(stem: str, name: str) -> str:
    return "-".join(filter(None, [stem, re.sub(r"[^\w.-]+", "-", name).strip("-")])) + ".png"


def print_report(report: Report, console: Console) -> None:
    """Prints the tables. With many data sets, prints only the tables over all data sets."""
    tables = report.tables
    if report.comparisons and len(report.comparisons[0].data_sets) > MAX_COLUMNS:
        tables = [table for table in tables if table.name == "data_sets"]
    print_tables(tables, console)
