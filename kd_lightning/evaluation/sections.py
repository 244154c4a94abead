"""The parts of an evaluation: rows of unformatted values, shown as a table and written as CSV."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_lightning.base.files import write_text
from kd_lightning.base.tables import Table, csv_text, markdown

Row = Mapping[str, Any]

percent: Callable[[float], str] = "{:.2%}".format
number: Callable[[float], str] = "{:.3f}".format
whole: Callable[[int], str] = "{:,}".format


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes:
        name: the stem of its files.
        title: the heading.
        rows: the values; None: there is none.
        columns: key of a value -> (head of the column, how a value is formatted).
        notes: sentences under the table.
    """

    name: str
    title: str
    rows: Sequence[Row]
    columns: Mapping[str, tuple[str, Callable[[Any], str]]]
    notes: Sequence[str] = field(default_factory=tuple)

    def table(self) -> Table:
        heads = [head for head, _ in self.columns.values()]
        cells = [
            [
                "" if row.get(key) is None else as_text(row[key])
                for key, (_, as_text) in self.columns.items()
            ]
            for row in self.rows
        ]
        return Table(self.name, self.title, heads, cells, self.notes)

    def write(self, folder: Path) -> None:
        """Writes ``<name>.md``, and ``<name>.csv`` at full precision."""
        write_text(folder / f"{self.name}.md", markdown(self.table()))
        write_text(folder / f"{self.name}.csv", csv_text(map(without_pairs, self.rows)))


def without_pairs(row: Row) -> dict[str, Any]:
    """The values, with two for an interval: ``interval_low`` and ``interval_high``."""
    values: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, tuple):
            values[f"{key}_low"], values[f"{key}_high"] = value
        else:
            values[key] = value
    return values


def interval_text(interval: Sequence[float]) -> str:
    """An interval of accuracies."""
    return " to ".join(map(percent, interval))


def file_stem(*words: str) -> str:
    """A name of a file from words that a user has chosen."""
    return "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in w) for w in words if w)
