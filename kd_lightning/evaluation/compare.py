"""Compares students on the same samples, in pairs."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from kd_lightning.base.proportions import mcnemar_p, paired_interval
from kd_lightning.evaluation.sections import Section, whole
from kd_lightning.reports.formats import format_p, format_points
from kd_lightning.reports.statistics import holm


def comparison(right: Mapping[str, Bool[Tensor, " N"]]) -> list[dict[str, Any]]:
    """One row for each student but the first, which all others are compared with.

    ``difference`` is accuracy - accuracy of the first, with a 95 % ``interval``; ``p`` is that of
    the exact McNemar test, ``p_holm`` has Holm's correction for all rows.

    Args:
        right: name -> which samples this student recognizes, in one order of the samples.
    """
    first, *others = right
    rows = []
    for name in others:
        gained = int((right[name] & ~right[first]).sum())
        lost = int((right[first] & ~right[name]).sum())
        total = len(right[name])
        row = {"student": name, "compared_with": first, "gained": gained, "lost": lost}
        row["difference"] = (gained - lost) / total
        row["interval"] = paired_interval(gained, lost, total)
        rows.append({**row, "p": mcnemar_p(gained, lost)})
    adjusted = holm([row["p"] for row in rows])
    return [{**row, "p_holm": p} for row, p in zip(rows, adjusted, strict=True)]


def section(rows: list[dict[str, Any]]) -> Section:
    first = rows[0]["compared_with"]
    columns = {
        "student": (f"compared with {first}", str),
        "gained": ("only it is right", whole),
        "lost": (f"only {first} is right", whole),
        "difference": ("difference, points", format_points),
        "interval": ("95 % interval", lambda ends: " to ".join(map(format_points, ends))),
        "p": ("p", format_p),
    }
    columns |= {"p_holm": ("p, Holm", format_p)} if len(rows) > 1 else {}
    notes = [
        "difference in accuracy on the same samples, in percentage points, with the interval of "
        "Bonett and Price (2012); p: exact McNemar test. They cover the choice of the samples, not "
        "the seeds of training: another seed may give another result."
    ]
    return Section("comparison", "Comparison", rows, columns, notes)
