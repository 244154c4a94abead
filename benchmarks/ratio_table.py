"""Tables of time ratios. The first row is a control, which says if the table can be trusted."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.paired_timing import Ratio, Step, compare

HEAD = ("| A / B | ratio | 95 % interval | ratio of the shortest |", "|---|---:|---:|---:|")
TOO_NOISY = (
    "**Too noisy**: the interval of the control does not contain 1, so no row of this table can be "
    "trusted."
)


@dataclass(frozen=True)
class Row:
    """One ratio.

    Attributes:
        title: A / B.
        measure: number of pairs -> the ratio.
    """

    title: str
    measure: Callable[[int], Ratio]


Rows = Iterable[Row | str]  # a string is a remark that is printed below the table


def ratio_row(title: str, a: Step, b: Step) -> Row:
    """The time of step ``a`` over the time of step ``b``."""
    return Row(title, partial(compare, a, b))


def table(rows: Rows, control: Step, pairs: int) -> Iterator[str]:
    """The lines of a table. Each line is yielded when it has been measured."""
    yield from HEAD
    control_ratio = compare(control, control, pairs)
    yield line("control, the same step twice", control_ratio)
    remarks = []
    if not control_ratio.contains_one:
        remarks.append(TOO_NOISY)
    for row in rows:
        if isinstance(row, str):
            remarks.append(row)
        else:
            yield line(row.title, row.measure(pairs))
    for remark in remarks:
        yield ""
        yield remark


def line(title: str, ratio: Ratio) -> str:
    interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
    return f"| {title} | {ratio.median:.2f} | {interval} | {ratio.least:.2f} |"
