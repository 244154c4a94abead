"""Finds the rows that ``pairs`` names: [A, B], each by its label or by ``key=value``.

Each net of A is compared with the net of B that has the same name. ``A @ ensemble`` and
``B @ student`` name one net each, for example to compare the ensemble of five students with the
single student of another row.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import yaml

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.words import shorten
from kd_lightning.reports.columns import measure_of, split
from kd_lightning.reports.job_results import JobResult

WHERE = "--pair A B, or sweep.pairs"  # where a person names pairs


@dataclass(frozen=True)
class Pair:
    """Two rows that are compared by A − B.

    Attributes:
        a: the label of row A.
        b: the label of row B.
        title: the name of the comparison.
        nets: one net of each row; None: all nets that both rows have.
        exploratory: whether the study named other pairs as its primary contrasts; None: it named
            none.
    """

    a: str
    b: str
    title: str
    nets: tuple[str, str] | None = None
    exploratory: bool | None = None

    def columns(self, metric: str, tested: Iterable[str]) -> list[tuple[str, str]]:
        """The columns to compare: each time one of A and one of B.

        Args:
            metric: its name in ``compared``.
            tested: the columns of this metric that are compared if no nets are named.
        """
        if self.nets is None:
            return [(column, column) for column in tested]
        a, b = self.nets
        part, metric = measure_of(metric)
        return [(f"{part}/{a}/{metric}", f"{part}/{b}/{metric}")]


def resolve(
    requested: Sequence[Sequence[str]], results: Sequence[JobResult], data_sets: Sequence[str]
) -> list[Pair]:
    """The pairs of rows. Two labels are one pair. Two values of a key are a pair for each two rows
    that have these values and agree in all other settings.

    Args:
        data_sets: the keys that name a data set.

    Raises:
        UserError: one of the two names no row, no two rows can be compared, or a row does not
            have the net.
    """
    settings = {result.variant: result.settings(data_sets) for result in results}
    pairs: list[Pair] = []
    for names in requested:
        if isinstance(names, str) or len(names) != 2:
            raise UserError(f"a pair names two rows, [A, B], got {names} ({WHERE}=…)")
        (a, net_a), (b, net_b) = (_split_net(str(name), settings) for name in names)
        if (net_a is None) != (net_b is None):
            raise UserError(
                f"a pair names a net for both rows or for none, got {names} ({WHERE}=…)"
            )
        if a in settings and b in settings:
            found = [Pair(a, b, f"{a} − {b}")]
        else:
            found = _pairs_by_value(a, b, settings)
        if net_a is not None and net_b is not None:
            found = [_with_nets(pair, net_a, net_b, results) for pair in found]
        pairs += found
    return list(dict.fromkeys(pairs))


def _split_net(name: str, settings: Mapping[str, Any]) -> tuple[str, str | None]:
    """The row and the net (None: not given) of ``row @ net``. A label may itself contain " @ "."""
    row, at, net = name.rpartition(" @ ")
    return (row, net) if at and name not in settings else (name, None)


def _with_nets(pair: Pair, net_a: str, net_b: str, results: Sequence[JobResult]) -> Pair:
    for row, net in ((pair.a, net_a), (pair.b, net_b)):
        values = [result.values for result in results if result.variant == row and result.values]
        nets = {split(column)[1] for of_job in values for column in of_job if "test/" in column}
        if values and net not in nets:
            raise unknown(f"net of '{row}' in a pair", net, nets, WHERE)
    rows = pair.a if pair.a == pair.b else pair.title
    return replace(pair, title=f"{rows}: {net_a} − {net_b}", nets=(net_a, net_b))


def _pairs_by_value(a: str, b: str, settings: Mapping[str, Mapping[str, Any]]) -> list[Pair]:
    """The pairs of rows of which one has the value ``a`` and the other has ``b``, all else equal.

    Args:
        settings: label -> axis -> value.
    """
    valid = list(dict.fromkeys([*settings, *_conditions(settings)]))
    found_a, found_b = (_condition(name, settings, valid) for name in (a, b))
    if found_a is None or found_b is None or found_a[0] != found_b[0]:
        raise UserError(
            "a pair names two rows or two values of one key, got "
            f"'{a}' and '{b}': the rows are {shorten(list(settings))} ({WHERE}=…)"
        )
    (key_a, word_a), (_, word_b) = found_a, found_b
    others = {
        label: {k: v for k, v in axes.items() if k != key_a} for label, axes in settings.items()
    }
    with_a, with_b = (
        [label for label, axes in settings.items() if key_a in axes and _equals(axes[key_a], word)]
        for word in (word_a, word_b)
    )
    found = [(x, y) for x in with_a for y in with_b if others[x] == others[y]]
    if not found:
        raise UserError(f"no two rows differ only in '{a}' and '{b}' ({WHERE}=…)")
    pairs = []
    for x, y in found:
        where = " ".join(f"{key}={value}" for key, value in others[x].items())
        pairs.append(Pair(x, y, f"{a} − {b}" + (f" at {where}" if where else "")))
    return pairs


def _condition(
    name: str, settings: Mapping[str, Mapping[str, Any]], valid: Sequence[str]
) -> tuple[str, str] | None:
    """The axis and the value that ``name`` means; a named variant is a value of ``variant``. None:
    it means none, but is a row.
    """
    if any(axes.get("variant") == name for axes in settings.values()):
        return "variant", name
    key, _, word = name.partition("=")
    if not any(key in axes and _equals(axes[key], word) for axes in settings.values()):
        if name in settings:
            return None
        raise unknown("row in a pair", name, valid, WHERE)
    return key, word


def _conditions(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Everything that ``_condition`` accepts."""
    names = [
        value if key == "variant" else f"{key}={value}"
        for axes in settings.values()
        for key, value in axes.items()
    ]
    return list(dict.fromkeys(map(str, names)))


def _equals(value: Any, word: str) -> bool:
    """Whether a word of a command line means this value of an axis."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(ValueError):
            return float(word) == value
        return False
    with suppress(yaml.YAMLError):
        return str(value) == word or yaml.safe_load(word) == value
    return False
