"""What papers report: a column beside ours, never a pass mark, for their protocol is another.

    reported:
      - source: arXiv 2511.18826
        where: {data: imagenet100}
        rows:
          dual_student: {test/a/accuracy: 83.84, test/b/accuracy: 81.46}

A row is a variant or a row's whole label; a number is as the tables show it, accuracies in percent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import yaml

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.reports.columns import PERCENT, expand, head, show, split
from kd_lightning.reports.job_results import JobResult, key_of


@dataclass(frozen=True, kw_only=True)
class Published:
    """The numbers of one source.

    Attributes:
        source: where they stand.
        rows: row -> column -> number, accuracies in percent.
        where: key -> value of the jobs beside which they stand; {}: all.
        mean_over: the key over all of whose values each number is a mean; None: none.
        values: how many values that key has; None: not known.
        note: what else a reader must know of them.
    """

    source: str
    rows: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    mean_over: str | None = None
    values: int | None = None
    note: str | None = None

    def is_of(self, record: JobResult) -> bool:
        return all(_setting(record, key) == str(value) for key, value in self.where.items())

    def is_beside(self, columns: Sequence[str]) -> bool:
        """Whether one of the columns has a number of this source, or none would have."""
        return not self.rows or any(c in row for c in columns for row in self.rows.values())

    @property
    def sentence(self) -> str:
        """What stands under a table."""
        said = [self.note.rstrip(".")] if self.note else []
        if self.rows:
            of = f"means over all {self.mean_over}, " if self.mean_over else ""
            said.insert(0, f"{of}another protocol, so a column to look at and no pass mark")
        return f"Reported by {self.source}: {'. '.join(said)}."


def _setting(record: JobResult, key: str) -> str | None:
    """What a job has for a key that varies or that its overrides set, as text."""
    if key in record.axes:
        return str(record.axes[key])
    words = [word.partition("=")[2] for word in record.overrides if key_of(word) == key]
    return str(yaml.safe_load(words[-1])) if words else None


def read(entries: Iterable[Any]) -> list[Published]:
    """The ``reported`` of a ``sweep.yaml``.

    Raises:
        UserError: an entry that is none.
    """
    return [_read(entry, f"sweep.reported[{i}]") for i, entry in enumerate(entries)]


def _read(entry: Any, key: str) -> Published:
    known = [one.name for one in fields(Published)]
    if not isinstance(entry, Mapping):
        raise UserError(f"{key} must be keys and values ({', '.join(known)}), got {entry}")
    for name in entry:
        if name not in known:
            raise unknown("key", f"{key}.{name}", [f"{key}.{other}" for other in known], key)
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
        raise UserError(f"a reported number is of one net, got '{column}' ({key})")
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"{key}.{column} must be a number, got {number}")
    if split(column)[2] in PERCENT and not 1 <= number <= 100:
        raise UserError(f"{key}.{column} must be in percent, got {number}")


def numbers_of(reported: Sequence[Published], record: JobResult) -> dict[str, float]:
    """What is reported of a job's row, by column, in the unit of our records (accuracies in
    [0, 1]); of two numbers for one column that of the first source.
    """
    found: dict[str, float] = {}
    of_it = [one for one in reported if one.is_of(record)]
    for name in (record.variant, record.axes.get("variant")):
        for one in of_it:
            for column, number in one.rows.get(name, {}).items():
                found.setdefault(column, _in_our_unit(column, number))
    return found


def _in_our_unit(column: str, number: float) -> float:
    # rounded: a hundredth of 83.84 need not be the double that 0.8384 is
    return round(number / 100, 12) if split(column)[2] in PERCENT else float(number)


def beside(
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    numbers: Sequence[Mapping[str, float]],
) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of a table, with what is reported next to ours.

    Args:
        columns: of ours.
        cells: ours, a row for each of ``numbers``.
        numbers: what is reported of each row, as ``numbers_of`` has it.
    """
    heads: list[str] = []
    rows: list[list[str]] = [[] for _ in cells]
    for i, column in enumerate(columns):
        heads.append(head(column))
        for row, own in zip(rows, cells, strict=True):
            row.append(own[i])
        if any(column in of_row for of_row in numbers):
            heads.append(f"reported {head(column)}")
            for row, of_row in zip(rows, numbers, strict=True):
                row.append(show(column, of_row[column]) if column in of_row else "")
    return heads, rows


def sentences(
    reported: Sequence[Published], records: Sequence[JobResult], columns: Sequence[str]
) -> list[str]:
    """What stands under a table of these jobs and columns."""
    return [
        one.sentence for one in reported if one.is_beside(columns) and any(map(one.is_of, records))
    ]


def left_out(
    reported: Sequence[Published], records: Sequence[JobResult], data_sets: Sequence[str]
) -> list[str]:
    """What of ``reported`` has no place in a report of these jobs, and why: the sweep may have been
    narrowed since it was written down.
    """
    notes = []
    measured = {column for record in records for column in record.values}
    for one in reported:
        of_it = [record for record in records if one.is_of(record)]
        wrong = []
        if not of_it:
            words = " ".join(f"{key}={value}" for key, value in one.where.items())
            wrong.append(f"no job has {words}")
        elif one.mean_over and not is_over(one, records, data_sets):
            of_all = f"all {one.values} of" if one.values else "those of"
            wrong.append(f"the data sets are not {of_all} {one.mean_over}")
        else:
            names = {r.variant for r in of_it} | {r.axes.get("variant") for r in of_it}
            wrong += [f"no row is called '{name}'" for name in one.rows if name not in names]
            columns = dict.fromkeys(column for row in one.rows.values() for column in row)
            wrong += [f"no run has {c}" for c in columns if measured and c not in measured]
        notes += [f"Left out of what {one.source} reports: {why}." for why in wrong]
    return notes


def is_over(one: Published, records: Sequence[JobResult], data_sets: Sequence[str]) -> bool:
    """Whether ``one`` has means over that in which these jobs' data sets differ."""
    names = {record.data_set(data_sets) for record in records}
    of_key = {record.data_set([one.mean_over]) for record in records if one.mean_over}
    return len(names) > 1 and names == of_key and one.values in (None, len(names))
