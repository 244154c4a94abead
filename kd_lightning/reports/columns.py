"""What stands in the columns of a report: the numbers of a run's record, by name.

    val/accuracy           the objective: val accuracy of the chosen weights, mean of the students
    val/<net>/<metric>     of a student's chosen weights: accuracy, nll, epoch
    test/<net>/<metric>    of a net, students by their chosen weights: accuracy, nll, ece,
                           adaptive_ece, brier, aurc, entropy, agreement (same class as the teacher)
    last/<net>/<metric>    on test, of a student's last epoch: as test, without agreement
    scaled/<net>/<metric>  as test, with the temperature that was fitted on val, if that was asked
                           for: temperature, nll, ece, adaptive_ece, brier, aurc, entropy
    net/<net>/<metric>     parameters, throughput (samples a second)

``<net>`` is a student's key, ``*`` for every student, ``teacher``, or what the students make
together: ``ensemble``, ``vote`` (of three or more; test accuracy and agreement alone),
``uniform_soup``, ``greedy_soup``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kd_lightning.base.errors import UserError

OBJECTIVE = "val/accuracy"
PROBABILITIES = ("nll", "ece", "adaptive_ece", "brier", "aurc", "entropy")
QUALITY = ("accuracy", *PROBABILITIES)
METRICS = {
    "val": ("accuracy", "nll", "epoch"),
    "test": (*QUALITY, "agreement"),
    "last": QUALITY,
    "scaled": ("temperature", *PROBABILITIES),
    "net": ("parameters", "throughput"),
}
# nets that a column may name though no run of this report has them: a preset's columns serve all
TOGETHER = ("ensemble", "vote", "uniform_soup", "greedy_soup")
COMMON = ("teacher", *TOGETHER)
PERCENT = ("accuracy", "agreement")


def values_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a ``metrics.json``, by the name of its column."""
    values = {OBJECTIVE: metrics["objective"]}
    for name, net in metrics["nets"].items():
        parts = {
            "val": {"epoch": net.get("epoch"), **net.get("val", {})} if metrics["has_val"] else {},
            "test": {**net["test"], "agreement": net.get("agreement")},
            "last": net.get("last", {}),
            "scaled": net.get("scaled", {}),
            "net": {metric: net.get(metric) for metric in METRICS["net"]},
        }
        for part, numbers in parts.items():
            values |= {f"{part}/{name}/{metric}": value for metric, value in numbers.items()}
    return {column: value for column, value in values.items() if value is not None}


def split(column: str) -> tuple[str, str, str]:
    """Part, net ("" for the objective) and metric of a column."""
    part, _, rest = column.partition("/")
    net, _, metric = rest.rpartition("/")
    return part, net, metric


def nets_of(values: Iterable[Mapping[str, float]]) -> list[str]:
    """The nets that occur, in the order they do."""
    names = (split(column)[1] for row in values for column in row)
    return [name for name in dict.fromkeys(names) if name]


def students_of(values: Iterable[Mapping[str, float]]) -> list[str]:
    """The students that occur; not those trained from labels alone, whose names have a comma."""
    rows = list(values)
    with_last = {split(column)[1] for row in rows for column in row if column.startswith("last/")}
    return [name for name in nets_of(rows) if name in with_last and "," not in name]


def default_columns(values: Iterable[Mapping[str, float]]) -> list[str]:
    """The objective, then each student's test accuracy and that of its last epoch, then that
    of what they make together.
    """
    rows = list(values)
    columns = [OBJECTIVE]
    for name in students_of(rows):
        columns += [f"test/{name}/accuracy", f"last/{name}/accuracy"]
    return columns + [f"test/{name}/accuracy" for name in TOGETHER if name in nets_of(rows)]


def expand(names: Sequence[str], values: Iterable[Mapping[str, float]]) -> list[str]:
    """The columns that ``names`` ask for, with every student in the place of ``*``.

    Raises:
        UserError: a name that is no column.
    """
    rows = list(values)
    students, nets = students_of(rows), [*nets_of(rows), *COMMON]
    columns: list[str] = []
    for name in names:
        part, net, metric = split(name)
        known = name == OBJECTIVE or (net != "" and metric in METRICS.get(part, ()))
        if not known or (rows and net not in ("", "*", *nets)):
            raise _unknown(name, nets)
        columns += [f"{part}/{key}/{metric}" for key in students] if net == "*" else [name]
    return list(dict.fromkeys(columns))


def _unknown(name: str, nets: Sequence[str]) -> UserError:
    forms = [OBJECTIVE, *(f"{part}/<net>/{'|'.join(known)}" for part, known in METRICS.items())]
    shown = ", ".join(dict.fromkeys(["*", *nets]))
    return UserError(
        f"unknown column '{name}': expected {', '.join(forms)}, where <net> is one of {shown} "
        "(columns=…)"
    )


def head(column: str) -> str:
    """A column's title: its name, and its unit if that is percent."""
    return f"{column} %" if split(column)[2] in PERCENT else column


def show(column: str, value: float) -> str:
    """A value as it stands in a table, without its unit."""
    metric = split(column)[2]
    if metric in PERCENT:
        return f"{100 * value:.2f}"
    if metric in METRICS["net"]:
        return f"{value:,.0f}"
    decimals = {"epoch": 1, "aurc": 4}.get(metric, 3)  # an aurc is some thousandths
    return f"{value:.{decimals}f}"
