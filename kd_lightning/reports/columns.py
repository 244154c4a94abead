"""Names the columns of a table: every number of a run's ``metrics.json`` is a column.

    val/accuracy           the objective: val accuracy of the chosen weights, mean of the students
    val/<net>/<metric>     a student's chosen weights on val: accuracy, nll, epoch, robust_accuracy
                           (under attack, of the methods that attack in training)
    test/<net>/<metric>    any net on test, a student with its chosen weights: accuracy,
                           balanced_accuracy (mean recall of the classes), macro_f1, nll, ece,
                           adaptive_ece, overconfidence_error, confidence_gap, brier, aurc, entropy,
                           robust_accuracy (under PGD, if evaluation.adversarial was set), agreement
                           (the share of samples that get the same class from the teacher)
    last/<net>/<metric>    a student on test with the weights of its last epoch: as test, without
                           robust_accuracy and agreement
    scaled/<net>/<metric>  as test, after temperature scaling fitted on val, if it was requested:
                           temperature, and the metrics of the probabilities, from nll to entropy
    net/<net>/<metric>     parameters, throughput (samples per second)

``<net>`` is a student's key, ``*`` for every student, ``teacher``, or a combination of the
students: ``ensemble``, ``vote`` (of three or more students; only test accuracy and agreement),
``uniform_soup``, ``greedy_soup``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kd_lightning.base.errors import UserError, similar_names

OBJECTIVE = "val/accuracy"
PROBABILITIES = (
    *("nll", "ece", "adaptive_ece", "overconfidence_error", "confidence_gap"),
    *("brier", "aurc", "entropy"),
)
QUALITY = ("accuracy", "balanced_accuracy", "macro_f1", *PROBABILITIES)
METRICS = {
    "val": ("accuracy", "nll", "epoch", "robust_accuracy"),
    "test": (*QUALITY, "robust_accuracy", "agreement"),
    "last": QUALITY,
    "scaled": ("temperature", *PROBABILITIES),
    "net": ("parameters", "throughput"),
}
# combinations of the students
COMBINED = ("ensemble", "vote", "uniform_soup", "greedy_soup")
# A column may name these nets even if no run of the report has them: a preset's columns are the
# same for all methods.
ALWAYS_VALID = ("teacher", *COMBINED)
PERCENT = ("accuracy", "balanced_accuracy", "macro_f1", "robust_accuracy", "agreement")
CHOOSERS = ("accuracy", "robust_accuracy")  # of a student on val; higher is better
DECIMALS = {"epoch": 1, "aurc": 4}  # others: 3; typical aurc values are some thousandths


def check_chooser(column: str) -> None:
    """Raises ``UserError`` unless a row can be chosen by this column: a share on val."""
    part, net, metric = split(column)
    if column != OBJECTIVE and (part != "val" or net in ("", "*") or metric not in CHOOSERS):
        raise UserError(
            f"rows are chosen by {OBJECTIVE} or val/<net>/{'|'.join(CHOOSERS)}, got '{column}' "
            "(sweep.chosen_by=…)"
        )


def values_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a ``metrics.json``, by column."""
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


def measure_of(name: str) -> tuple[str, str]:
    """Part and metric of a name in ``compared``, such as ``last/nll``; ``nll`` is that of test."""
    part, _, metric = name.rpartition("/")
    return part or "test", metric


def split(column: str) -> tuple[str, str, str]:
    """Part, net ("" for the objective) and metric of a column."""
    part, _, rest = column.partition("/")
    net, _, metric = rest.rpartition("/")
    return part, net, metric


def nets_of(values: Iterable[Mapping[str, float]]) -> list[str]:
    """All nets, in the order of their first occurrence."""
    names = (split(column)[1] for row in values for column in row)
    return [name for name in dict.fromkeys(names) if name]


def students_of(values: Iterable[Mapping[str, float]]) -> list[str]:
    """All students, without the baselines, whose names have a comma."""
    rows = list(values)
    with_last = {split(column)[1] for row in rows for column in row if column.startswith("last/")}
    return [name for name in nets_of(rows) if name in with_last and "," not in name]


def default_columns(values: Iterable[Mapping[str, float]]) -> list[str]:
    """The objective, each student's test accuracy (chosen weights, last epoch), and the test
    accuracy of each combination of the students.
    """
    rows = list(values)
    columns = [OBJECTIVE]
    for name in students_of(rows):
        columns += [f"test/{name}/accuracy", f"last/{name}/accuracy"]
    return columns + [f"test/{name}/accuracy" for name in COMBINED if name in nets_of(rows)]


def expand(names: Sequence[str], values: Iterable[Mapping[str, float]]) -> list[str]:
    """The columns that ``names`` stand for; ``*`` is replaced by every student.

    Raises:
        UserError: a name is not a column.
    """
    rows = list(values)
    students, nets = students_of(rows), [*nets_of(rows), *ALWAYS_VALID]
    columns: list[str] = []
    for name in names:
        part, net, metric = split(name)
        is_column = name == OBJECTIVE or (net != "" and metric in METRICS.get(part, ()))
        if not is_column or (rows and net not in ("", "*", *nets)):
            raise _unknown(name, nets)
        columns += [f"{part}/{key}/{metric}" for key in students] if net == "*" else [name]
    return list(dict.fromkeys(columns))


def _unknown(name: str, nets: Sequence[str]) -> UserError:
    part, net, metric = split(name)
    shown = ", ".join(dict.fromkeys(["*", *nets]))
    every = [f"{part}/{net}/{m}" for part, found in METRICS.items() for net in nets for m in found]
    forms = [OBJECTIVE, *(f"{part}/<net>/{'|'.join(names)}" for part, names in METRICS.items())]
    if net != "" and metric in METRICS.get(part, ()):
        advice = f"expected one of the nets {shown}, got {net}"
    elif similar := similar_names(name, [OBJECTIVE, *every]):
        advice = f"did you mean {' or '.join(similar)}?"
    else:
        advice = f"expected {', '.join(forms)}, where <net> is one of {shown}"
    return UserError(f"unknown column '{name}': {advice} (--columns …, or sweep.columns=…)")


def heading(column: str) -> str:
    """The heading of a column: its name, with the unit if that is percent."""
    return f"{column} %" if split(column)[2] in PERCENT else column


def format_value(column: str, value: float) -> str:
    """A value as the table shows it, without its unit."""
    metric = split(column)[2]
    if metric in PERCENT:
        return f"{100 * value:.2f}"
    if metric in METRICS["net"]:
        return f"{value:,.0f}"
    return f"{value:.{DECIMALS.get(metric, 3)}f}"
