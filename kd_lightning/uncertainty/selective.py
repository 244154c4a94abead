"""What a classifier gains by not answering where it is least sure.

Samples are answered in the order of the probability of the predicted class: softmax response,
Geifman & El-Yaniv, arXiv 1705.08500. All is computed from logits and has no gradient. Dimensions:
B samples, C classes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.uncertainty.ties import mean_over_ties


class RiskCoverage(NamedTuple):
    """One point for each number of samples that are answered, from the surest one to all.

    Attributes:
        coverage: share of the samples that is answered, 1 / B to 1.
        risk: share of the answers that is wrong; last, the error of the classifier.
    """

    coverage: Float[Tensor, "B"]
    risk: Float[Tensor, "B"]


def log_odds(logits: Float[Tensor, "B C"]) -> Float[Tensor, "B"]:
    """``log p / (1 - p)`` of the predicted class: it orders as the probability p does.

    And it still does where p is so near 1 that float32 has no number between, which is most
    samples of an overconfident net.
    """
    logits = logits.detach().float()
    first, predicted = logits.max(dim=1, keepdim=True)
    others = logits.scatter(1, predicted, -torch.inf).logsumexp(dim=1)
    return first.squeeze(1) - others


def risk_coverage(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> RiskCoverage:
    """The selective risk ``sum_k wrong_k / n`` of the n surest samples, n = 1 .. B.

    Where samples tie, a threshold on the probability takes all of them or none; between these
    points stands the mean over all orders of the tied, on which the curve therefore does not
    depend.
    """
    odds = log_odds(logits)
    wrong = mean_over_ties((logits.argmax(dim=1) != labels).float(), odds)
    answered = torch.arange(1, len(wrong) + 1, device=wrong.device)
    risk = wrong[odds.argsort(descending=True)].cumsum(dim=0) / answered
    return RiskCoverage((answered / len(wrong)).float(), risk.float())


def area_under_risk_coverage(
    logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]
) -> Float[Tensor, ""]:
    """AURC: the mean of the selective risk over the coverages 1 / B .. 1, a scalar in [0, 1].

    Geifman et al., arXiv 1805.08206. Zero when nothing is wrong; about the error when
    the confidence says nothing; lower, the later the errors come. Errors that all come last still
    cost: it measures the accuracy too, and is to be compared between nets that are as accurate.
    """
    return risk_coverage(logits, labels).risk.double().mean().float()
