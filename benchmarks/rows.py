"""Rows of ratios, and the table that they make: with a control before them, and what it says."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.paired import Ratio, Step, compare

HEAD = ("| A / B | ratio | 95 % interval | of the shortest |", "|---|---:|---:|---:|")
TOO_NOISY = (
    "**Too noisy**: the interval of the control does not hold 1, so no row of this table can be "
    "trusted."
)


@dataclass(frozen=True)
class Row:
    """One ratio.

    Attributes:
        title: A / B.
        measure: a number of pairs -> the ratio.
    """

    title: str
    measure: Callable[[int], Ratio]


Rows = Iterable[Row | str]  # a string is a remark, that goes below the table


def beside(title: str, a: Step, b: Step) -> Row:
    """The time of a step over that of another."""
    return Row(title, partial(compare, a, b))


def table(rows: Rows, control: Step, pairs: int) -> Iterator[str]:
    """The lines of a table, each as soon as it is known."""
    yield from HEAD
    same = compare(control, control, pairs)
    yield line("control, the same step twice", same)
    remarks = []
    if not same.is_one:
        remarks.append(TOO_NOISY)
    for row in rows:
        if isinstance(row, str):
            remarks.append(row)
        else:
            yield line(row.title, row.measure(pairs))
    for remark in remarks:
        yield ""
        yield remark


def line(title: str, found: Ratio) -> str:
    spread = f"{found.low:.2f} to {found.high:.2f}"
    return f"| {title} | {found.median:.2f} | {spread} | {found.least:.2f} |"
