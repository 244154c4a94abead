"""The table of a run's nets, from its ``table.csv``."""

from collections.abc import Callable, Mapping

from kd_lightning.base.proportions import wilson_interval
from kd_lightning.base.tables import Table
from kd_lightning.base.words import percent
from kd_lightning.reports.page.blocks import SortableTable
from kd_lightning.reports.page.records import RunRecord

# column -> how a number is written; the others have three decimals
FORMATS: Mapping[str, Callable[[float], str]] = {
    "accuracy": percent,
    "last": percent,
    "PGD accuracy": percent,
    "agreement": percent,
    "T": "{:.2f}".format,
    "parameters": "{:,.0f}".format,
    "compression": "{:.1f} ×".format,
    "throughput": "{:,.0f}".format,
}


def nets_table(record: RunRecord) -> list[SortableTable]:
    """The table with its notes; [] without ``table.csv``."""
    columns = list(record.table[0]) if record.table else []
    if "net" not in columns:  # missing, or not that of a run
        return []
    unit = record.metrics.get("unit", "samples")
    heads = [f"{unit}/s" if column == "throughput" else column for column in columns]
    rows = [[_cell(column, row[column]) for column in columns] for row in record.table]
    notes = [*record.caption, *_note_on_size(record)]
    return [SortableTable(Table("nets", "", heads, rows, notes))]


def _cell(column: str, text: str) -> str:
    if column == "net" or not text:
        return text
    try:
        return FORMATS.get(column, "{:.3f}".format)(float(text))
    except ValueError:
        return text


def _note_on_size(record: RunRecord) -> list[str]:
    """How far the number of test samples lets an accuracy be known."""
    n, students = record.num_test, record.students
    if not n or not students:
        return []
    accuracy = record.metrics["nets"][students[0]]["test"]["accuracy"]
    low, high = wilson_interval(accuracy * n, n)
    return [
        f"{n:,} test samples: the 95 % interval of {students[0]}'s accuracy is {100 * low:.2f} to "
        f"{percent(high)} (Wilson). It does not cover the variation between seeds."
    ]
