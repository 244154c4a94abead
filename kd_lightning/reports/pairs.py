"""The rows that a sweep's ``pairs`` name: [A, B] by their labels, or by one ``key=value`` each.

Each net of A is compared with the net of that name of B; ``A @ ensemble`` and ``B @ student`` name
two, such as what five students make together and the one of another row.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import yaml

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.reports.columns import split
from kd_lightning.reports.job_results import JobResult


@dataclass(frozen=True)
class Pair:
    """Two rows that are compared.

    Attributes:
        a: the label of the row whose values count positive.
        b: that of the other.
        title: the comparison in words.
        nets: one of each row; None: all that both have.
    """

    a: str
    b: str
    title: str
    nets: tuple[str, str] | None = None

    def columns(self, tested: Iterable[str]) -> list[tuple[str, str]]:
        """What is compared: a column of A and one of B."""
        if self.nets is None:
            return [(column, column) for column in tested]
        a, b = self.nets
        return [(f"test/{a}/accuracy", f"test/{b}/accuracy")]


def resolve(
    asked: Sequence[Sequence[str]], records: Sequence[JobResult], data_sets: Sequence[str]
) -> list[Pair]:
    """The rows that are compared: two labels are one pair; two values of a key are as many as
    there are rows that agree in the rest.

    Raises:
        UserError: a side that names nothing, no two rows that could be compared, or a net that a
            row does not have.
    """
    cells = {record.variant: record.cell(data_sets) for record in records}
    pairs: list[Pair] = []
    for sides in asked:
        if isinstance(sides, str) or len(sides) != 2:
            raise UserError(f"a pair names two rows, [A, B], got {sides} (pairs=…)")
        (a, net_a), (b, net_b) = (_row_and_net(str(side), cells) for side in sides)
        if (net_a is None) != (net_b is None):
            raise UserError(f"a pair names a net of both rows or of none, got {sides} (pairs=…)")
        found = [Pair(a, b, f"{a} − {b}")] if a in cells and b in cells else _by_axis(a, b, cells)
        if net_a is not None and net_b is not None:
            found = [_of_nets(pair, net_a, net_b, records) for pair in found]
        pairs += found
    return list(dict.fromkeys(pairs))


def _row_and_net(side: str, cells: Mapping[str, Any]) -> tuple[str, str | None]:
    row, at, net = side.rpartition(" @ ")
    return (row, net) if at and side not in cells else (side, None)


def _of_nets(pair: Pair, net_a: str, net_b: str, records: Sequence[JobResult]) -> Pair:
    for row, net in ((pair.a, net_a), (pair.b, net_b)):
        values = [record.values for record in records if record.variant == row and record.values]
        known = {split(column)[1] for of_job in values for column in of_job if "test/" in column}
        if values and net not in known:
            raise unknown(f"net of '{row}' in a pair", net, known, "pairs")
    rows = pair.a if pair.a == pair.b else pair.title
    return replace(pair, title=f"{rows}: {net_a} − {net_b}", nets=(net_a, net_b))


def _by_axis(a: str, b: str, cells: Mapping[str, Mapping[str, Any]]) -> list[Pair]:
    known = [*cells, *_conditions(cells)]
    (key_a, word_a), (key_b, word_b) = (_condition(side, cells, known) for side in (a, b))
    if key_a != key_b:
        raise UserError(f"a pair names two values of one key, got '{a}' and '{b}' (pairs=…)")
    rests = {label: {k: v for k, v in axes.items() if k != key_a} for label, axes in cells.items()}
    with_a, with_b = (
        [label for label, axes in cells.items() if key_a in axes and _is(axes[key_a], word)]
        for word in (word_a, word_b)
    )
    found = [(one, other) for one in with_a for other in with_b if rests[one] == rests[other]]
    if not found:
        raise UserError(f"no rows differ in nothing but '{a}' and '{b}' (pairs=…)")
    pairs = []
    for one, other in found:
        where = " ".join(f"{key}={value}" for key, value in rests[one].items())
        pairs.append(Pair(one, other, f"{a} − {b}" + (f" at {where}" if where else "")))
    return pairs


def _condition(
    side: str, cells: Mapping[str, Mapping[str, Any]], known: Sequence[str]
) -> tuple[str, str]:
    """The axis that a side names, and its value; a named variant is a value of ``variant``."""
    if any(axes.get("variant") == side for axes in cells.values()):
        return "variant", side
    key, _, word = side.partition("=")
    if not any(key in axes and _is(axes[key], word) for axes in cells.values()):
        raise unknown("row in a pair", side, known, "pairs")
    return key, word


def _conditions(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = [
        value if key == "variant" else f"{key}={value}"
        for axes in cells.values()
        for key, value in axes.items()
    ]
    return list(dict.fromkeys(map(str, found)))


def _is(value: Any, word: str) -> bool:
    """Whether a word of a person's means an axis' value."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(ValueError):
            return float(word) == value
        return False
    with suppress(yaml.YAMLError):
        return str(value) == word or yaml.safe_load(word) == value
    return False
