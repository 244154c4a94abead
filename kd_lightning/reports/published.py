"""``Published``: numbers published in a paper, shown in a column beside ours.

They cannot be compared directly with ours, because a paper's protocol differs. A ``sweep.yaml``
lists them under the key ``reported``:

    reported:
      - source: arXiv 2511.18826
        where: {data: imagenet100}
        rows:
          dual_student: {test/a/accuracy: 83.84, test/b/accuracy: 81.46}

A row is a variant or the full label of a row. A number has the unit of the tables: accuracies are
in percent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import yaml

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.override_words import key_of
from kd_lightning.reports.columns import PERCENT, expand, format_value, heading, split
from kd_lightning.reports.job_results import JobResult


@dataclass(frozen=True, kw_only=True)
class Published:
    """Numbers published in one paper.

    Attributes:
        source: the paper.
        rows: row -> column -> number, accuracies in percent.
        where: key -> value: the numbers belong only to jobs with these settings; {}: to all jobs.
        mean_over: each number is a mean over all values of this key; None: it is no such mean.
        values: how many values that key has; None: not known.
        note: what else a reader must know about the numbers.
    """

    source: str
    rows: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    mean_over: str | None = None
    values: int | None = None
    note: str | None = None

    def belongs_to(self, result: JobResult) -> bool:
        return all(_setting(result, key) == str(value) for key, value in self.where.items())

    def has_column_of(self, columns: Sequence[str]) -> bool:
        """Whether it has a number for one of the columns, or no numbers at all (only a note)."""
        return not self.rows or any(c in row for c in columns for row in self.rows.values())

    @property
    def sentence(self) -> str:
        """The note under a table."""
        parts = [self.note.rstrip(".")] if self.note else []
        if self.rows:
            means = f"means over all {self.mean_over}; " if self.mean_over else ""
            parts.insert(0, f"{means}not directly comparable with our numbers: another protocol")
        return f"Reported by {self.source}: {'. '.join(parts)}."


def _setting(result: JobResult, key: str) -> str | None:
    """A job's value of a key that varies or that an override sets, as text."""
    if key in result.axes:
        return str(result.axes[key])
    words = [word.partition("=")[2] for word in result.overrides if key_of(word) == key]
    return str(yaml.safe_load(words[-1])) if words else None


def read_published(entries: Iterable[Any]) -> list[Published]:
    """Reads the entries under ``reported`` in a ``sweep.yaml``.

    Raises:
        UserError: an entry is not valid.
    """
    return [_read(entry, f"sweep.reported[{i}]") for i, entry in enumerate(entries)]


def _read(entry: Any, key: str) -> Published:
    names = [attribute.name for attribute in fields(Published)]
    if not isinstance(entry, Mapping):
        raise UserError(f"{key} must be keys and values ({', '.join(names)}), got {entry}")
    for name in entry:
        if name not in names:
            raise unknown("key", f"{key}.{name}", [f"{key}.{other}" for other in names], key)
    for name in ("source", "mean_over", "note"):
        value = entry.get(name)
        if not (isinstance(value, str) or (value is None and name != "source")):
            raise UserError(f"{key}.{name} must be text, got {value}")
    values = entry.get("values")
    if values is not None and (type(values) is not int or values < 2):
        raise UserError(f"{key}.values must be a whole number >= 2, got {values}")
    for name in ("rows", "where"):
        if not isinstance(entry.get(name, {}), Mapping):
            raise UserError(f"{key}.{name} must be keys and values, got {entry[name]}")
    if not entry.get("rows") and not entry.get("note"):
        raise UserError(f"{key} must have numbers or a note, got neither ({key}.rows=…)")
    for row, numbers in entry.get("rows", {}).items():
        if not isinstance(numbers, Mapping):
            raise UserError(f"{key}.rows.{row} must be columns and numbers, got {numbers}")
        for column, number in numbers.items():
            _check(column, number, f"{key}.rows.{row}")
    return Published(**entry)


def _check(column: str, number: Any, key: str) -> None:
    if not expand([column], []):
        raise UserError(f"a published number belongs to one net, got '{column}' ({key})")
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"{key}.{column} must be a number, got {number}")
    if split(column)[2] in PERCENT and not 1 <= number <= 100:
        raise UserError(f"{key}.{column} must be in percent, got {number}")


def published_values(published: Sequence[Published], result: JobResult) -> dict[str, float]:
    """Column -> published number for a job's row, in our unit (accuracies in [0, 1]). If two
    sources have a number for one column, the first source wins.
    """
    values: dict[str, float] = {}
    matching = [entry for entry in published if entry.belongs_to(result)]
    for name in (result.variant, result.axes.get("variant")):
        for entry in matching:
            for column, number in entry.rows.get(name, {}).items():
                values.setdefault(column, _to_our_unit(column, number))
    return values


def _to_our_unit(column: str, number: float) -> float:
    # rounded, because 83.84 / 100 need not be the float 0.8384
    return round(number / 100, 12) if split(column)[2] in PERCENT else float(number)


def with_published(
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    numbers: Sequence[Mapping[str, float]],
) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a table with a column of published numbers after each of ours that has
    some.

    Args:
        columns: our columns.
        cells: our cells, by row and column.
        numbers: the published numbers of each row, from ``published_values``.
    """
    heads: list[str] = []
    rows: list[list[str]] = [[] for _ in cells]
    for i, column in enumerate(columns):
        heads.append(heading(column))
        for row, ours in zip(rows, cells, strict=True):
            row.append(ours[i])
        if any(column in values for values in numbers):
            heads.append(f"reported {heading(column)}")
            for row, values in zip(rows, numbers, strict=True):
                row.append(format_value(column, values[column]) if column in values else "")
    return heads, rows


def notes_on_published(
    published: Sequence[Published], results: Sequence[JobResult], columns: Sequence[str]
) -> list[str]:
    """The notes under a table with these jobs and columns."""
    return [
        entry.sentence
        for entry in published
        if entry.has_column_of(columns) and any(map(entry.belongs_to, results))
    ]


def notes_on_omitted(
    published: Sequence[Published], results: Sequence[JobResult], data_sets: Sequence[str]
) -> list[str]:
    """Notes on published numbers that fit nowhere in a report of these jobs. This is no error: a
    sweep may be run with fewer variants, or on fewer data sets, than its preset has.
    """
    notes = []
    measured = {column for result in results for column in result.values}
    elsewhere: dict[str, list[str]] = {}  # source -> the settings that no job has
    used = set()
    for entry in published:
        matching = [result for result in results if entry.belongs_to(result)]
        reasons = []
        if not matching:
            words = " ".join(f"{key}={value}" for key, value in entry.where.items())
            elsewhere.setdefault(entry.source, []).append(words)
            continue
        used.add(entry.source)
        if entry.mean_over and not is_mean_over(entry, results, data_sets):
            count = f"{entry.values} " if entry.values else ""
            reasons.append(
                f"the data sets of this report are not the {count}values of {entry.mean_over}"
            )
        else:
            names = {r.variant for r in matching} | {r.axes.get("variant") for r in matching}
            reasons += [f"no row is called '{name}'" for name in entry.rows if name not in names]
            columns = dict.fromkeys(column for row in entry.rows.values() for column in row)
            reasons += [f"no run has {c}" for c in columns if measured and c not in measured]
        notes += [f"Left out of what {entry.source} reports: {reason}." for reason in reasons]
    return notes + [
        f"Left out of what {source} reports: no job has {' or '.join(dict.fromkeys(words))}."
        for source, words in elsewhere.items()
        if source not in used
    ]


def is_mean_over(entry: Published, results: Sequence[JobResult], data_sets: Sequence[str]) -> bool:
    """Whether the numbers of ``entry`` are means over exactly the data sets of these jobs."""
    names = {result.data_set(data_sets) for result in results}
    averaged = {result.data_set([entry.mean_over]) for result in results if entry.mean_over}
    return len(names) > 1 and names == averaged and entry.values in (None, len(names))
