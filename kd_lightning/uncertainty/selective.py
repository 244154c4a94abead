"""Selective prediction: a classifier that abstains on the samples that it is least confident in.

Samples are accepted in descending order of the probability of the predicted class (softmax
response): Geifman & El-Yaniv, arXiv 1705.08500. Everything is computed from logits and has no
gradient. Dimensions: B samples, C classes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.uncertainty.ties import mean_over_ties


class RiskCoverage(NamedTuple):
    """One point for each number of accepted samples, from the most confident one to all.

    Attributes:
        coverage: share of the samples that is accepted, 1 / B to 1.
        risk: share of wrong predictions among the accepted samples. The last value is the error of
            the classifier.
    """

    coverage: Float[Tensor, "B"]
    risk: Float[Tensor, "B"]


def log_odds(logits: Float[Tensor, "B C"]) -> Float[Tensor, "B"]:
    """``log p / (1 - p)`` of the predicted class. It gives the same order as the probability p.

    It also orders samples whose p is 1 in float32, as it is for most samples of an overconfident
    net.
    """
    logits = logits.detach().float()
    first, predicted = logits.max(dim=1, keepdim=True)
    others = logits.scatter(1, predicted, -torch.inf).logsumexp(dim=1)
    return first.squeeze(1) - others


def risk_coverage(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> RiskCoverage:
    """The selective risk ``sum_k wrong_k / n`` of the n most confident samples, n = 1 .. B.

    A threshold on the probability accepts all samples of equal confidence or none of them. The
    points between are means over all orders of these samples, so the curve does not depend on their
    order.
    """
    odds = log_odds(logits)
    wrong = mean_over_ties((logits.argmax(dim=1) != labels).float(), odds)
    num_accepted = torch.arange(1, len(wrong) + 1, device=wrong.device)
    risk = wrong[odds.argsort(descending=True)].cumsum(dim=0) / num_accepted
    return RiskCoverage((num_accepted / len(wrong)).float(), risk.float())


def area_under_risk_coverage(
    logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]
) -> Float[Tensor, ""]:
    """AURC: the mean of the selective risk over the coverages 1 / B .. 1, a scalar in [0, 1].

    Geifman et al., arXiv 1805.08206. Zero when no prediction is wrong. About the error of the
    classifier when the confidence is uninformative. Lower when wrong predictions have lower
    confidence. It depends on the accuracy too, so compare it only between nets of equal accuracy.
    """
    return risk_coverage(logits, labels).risk.double().mean().float()
