"""How well a student's outputs tell its own data from other data, which have none of its classes.

A score is high for samples that look like the student's data: these are the positive class, as in
Hendrycks & Gimpel 2017 (arXiv 1610.02136). Dimensions: N samples, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from sklearn.metrics import roc_auc_score
from torch import Tensor

from kd_lightning.evaluation.labelled_set import (
    Advance,
    LabelledSet,
    Subject,
    note_on_form,
    predict_all,
)
from kd_lightning.evaluation.sections import Section, percent, whole
from kd_lightning.uncertainty.confidence import predictive_entropy
from kd_lightning.uncertainty.selective import log_odds

TPR = 95  # percent of the student's own samples that are accepted
Scores = Float[Tensor, " N"]


def scores(logits: Float[Tensor, "N C"]) -> dict[str, Scores]:
    """The scores of samples, each higher for samples that look like the student's data.

    ``max probability`` is given as log-odds, which have the same order and no ties at 1. ``energy``
    is ``logsumexp(z)``, the negative energy of Liu et al. 2020 (arXiv 2010.03759) at T = 1.
    """
    return {
        "max probability": log_odds(logits),
        "entropy": -predictive_entropy(logits),
        "energy": logits.float().logsumexp(1),
    }


def auroc(own: Scores, other: Scores) -> float:
    """The probability that a sample of the student's data has a higher score than another one; a
    tie counts one half.
    """
    is_own = torch.cat([torch.ones_like(own), torch.zeros_like(other)])
    return float(roc_auc_score(is_own.numpy(), torch.cat([own, other]).double().numpy()))


def fpr95(own: Scores, other: Scores) -> float:
    """The share of other samples that are accepted by the highest threshold which accepts 95 % of
    the student's data or more. A sample is accepted if its score is at least the threshold.
    """
    needed = -(-TPR * len(own) // 100)
    threshold = own.sort(descending=True).values[needed - 1]
    return (other >= threshold).double().mean().item()


def measure(
    subjects: Sequence[Subject],
    logits: Mapping[str, Float[Tensor, "N C"]],
    other: LabelledSet,
    device: torch.device,
    advance: Advance,
) -> list[dict[str, Any]]:
    """One row for each student and each score.

    Args:
        logits: of each student on its own data.
        other: the samples that have none of its classes.
    """
    theirs, _ = predict_all(subjects, other, device, advance)
    rows = []
    for subject in subjects:
        own_scores, other_scores = scores(logits[subject.name]), scores(theirs[subject.name])
        for name, own in own_scores.items():
            values = own, other_scores[name]
            sizes = {"n": len(own), "n_other": len(values[1])}
            row = {"student": subject.name, "score": name, **sizes}
            rows.append({**row, "auroc": auroc(*values), "fpr95": fpr95(*values)})
    return rows


def section(
    rows: Sequence[Mapping[str, Any]],
    subjects: Sequence[Subject],
    own: LabelledSet,
    other: LabelledSet,
) -> Section:
    shared = sorted(set(own.data.class_names) & set(other.data.class_names))
    notes = [
        f"AUROC: the probability that a sample of {own.name} has a higher score than one of "
        f"{other.name} (50 %: chance). FPR95: the share of {other.name} that is accepted by a "
        f"threshold which accepts 95 % of {own.name}."
    ]
    notes += dict.fromkeys(n for s in subjects for n in note_on_form(other, s.form))
    if shared:
        notes.append(
            f"Both data sets have {len(shared)} classes of the same name (such as {shared[0]}): "
            "if they are the same classes, these data are not out of distribution."
        )
    columns = {
        "student": ("student", str),
        "score": ("score", str),
        "n": (f"n {own.name}", whole),
        "n_other": (f"n {other.name}", whole),
        "auroc": ("AUROC", percent),
        "fpr95": ("FPR95", percent),
    }
    return Section("ood", f"Out of distribution: {other.name}", rows, columns, notes)
