"""The rows that a sweep's ``pairs`` name: [A, B] by their labels, or by one ``key=value`` each."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from kd_lightning.errors import UserError, unknown
from kd_lightning.reports.records import Record


@dataclass(frozen=True)
class Pair:
    """Two rows that are compared.

    Attributes:
        a: the label of the row whose values count positive.
        b: that of the other.
        title: the comparison in words.
    """

    a: str
    b: str
    title: str


def resolve(
    asked: Sequence[Sequence[str]], records: Sequence[Record], data_sets: Sequence[str]
) -> list[Pair]:
    """The rows that are compared: two labels are one pair; two values of a key are as many as
    there are rows that agree in the rest.

    Raises:
        UserError: a side that names nothing, or no two rows that could be compared.
    """
    cells = {record.variant: record.cell(data_sets) for record in records}
    pairs: list[Pair] = []
    for sides in asked:
        if isinstance(sides, str) or len(sides) != 2:
            raise UserError(f"a pair names two rows, [A, B], got {sides} (pairs=…)")
        a, b = map(str, sides)
        if a in cells and b in cells:
            pairs.append(Pair(a, b, f"{a} − {b}"))
        else:
            pairs += _by_axis(a, b, cells)
    return list(dict.fromkeys(pairs))


def _by_axis(a: str, b: str, cells: Mapping[str, Mapping[str, Any]]) -> Iterator[Pair]:
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
    for one, other in found:
        where = " ".join(f"{key}={value}" for key, value in rests[one].items())
        yield Pair(one, other, f"{a} − {b}" + (f" at {where}" if where else ""))
    if not found:
        raise UserError(f"no rows differ in nothing but '{a}' and '{b}' (pairs=…)")


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
