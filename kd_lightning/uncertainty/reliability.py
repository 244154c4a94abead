"""Reliability: the accuracy of a classifier as a function of its confidence.

The confidence is the probability of the predicted class. ``equal_width`` and ``equal_mass`` assign
confidences to bins. Everything is computed from logits at temperature 1, and has no gradient.

Dimensions: B samples, C classes, M bins.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.uncertainty.ties import mean_over_ties

Binning = Callable[[Float[Tensor, "B"], int], Int[Tensor, "B"]]


class Reliability(NamedTuple):
    """The samples of each bin; the bin of the lowest confidences comes first.

    Attributes:
        count: number of samples.
        confidence: mean probability of the predicted class; NaN in an empty bin.
        accuracy: share of correct predictions; NaN in an empty bin.
    """

    count: Int[Tensor, "M"]
    confidence: Float[Tensor, "M"]
    accuracy: Float[Tensor, "M"]


def equal_width(values: Float[Tensor, "B"], num_bins: int) -> Int[Tensor, "B"]:
    """The bin of each value in [0, 1]. The bins are ``((m - 1) / M, m / M]``; 0 is in the first.

    Raises:
        ValueError: num_bins is not >= 1.
    """
    _check_num_bins(num_bins)
    edges = torch.linspace(0, 1, num_bins + 1, device=values.device)
    # not torch.bucketize: the compiler of torch 2.11 cannot follow it on a GPU
    below_or_equal = values.unsqueeze(1) <= edges[1:-1]
    return (~below_or_equal).sum(dim=1)  # NaN is in the last bin, as in bucketize


def equal_mass(values: Float[Tensor, "B"], num_bins: int) -> Int[Tensor, "B"]:
    """The bin of each value, in ascending order. The numbers of values in bins differ by at most 1.

    If B < M, some bins are empty. Equal values may be in different bins, depending on their order.
    So what is summed in the bins must be equal for equal values (``mean_over_ties``).

    Raises:
        ValueError: num_bins is not >= 1.
    """
    _check_num_bins(num_bins)
    rank = values.argsort().argsort()
    return rank * num_bins // len(values)


def top_prediction(
    logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """The probability of the predicted class, and 1 where this class is the label, else 0."""
    confidence = logits.detach().float().softmax(dim=1).amax(dim=1)
    return confidence, (logits.argmax(dim=1) == labels).float()


def reliability_curve(
    logits: Float[Tensor, "B C"],
    labels: Int[Tensor, "B"],
    num_bins: int = 15,
    binning: Binning = equal_width,
) -> Reliability:
    """Accuracy against confidence: Guo et al., arXiv 1706.04599, section 2.

    Samples of equal confidence share their mean accuracy, so the curve does not depend on the order
    of the samples. The curve of a calibrated classifier is the diagonal.

    Raises:
        ValueError: num_bins is not >= 1.
    """
    confidence, correct = top_prediction(logits, labels)
    in_bin = binning(confidence, num_bins)
    count = in_bin.bincount(minlength=num_bins)

    def mean(values: Float[Tensor, "B"]) -> Float[Tensor, "M"]:
        sums = torch.zeros(num_bins, dtype=torch.float64, device=values.device)
        return (sums.index_add(0, in_bin, values.double()) / count).float()

    return Reliability(count, mean(confidence), mean(mean_over_ties(correct, confidence)))


def _check_num_bins(num_bins: int) -> None:
    if num_bins < 1:
        raise ValueError(f"num_bins must be >= 1, got {num_bins}")
