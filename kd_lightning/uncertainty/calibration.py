"""Whether a classifier's probabilities can be believed. Dimensions: B samples, C classes.

All take logits and soften them here, at temperature 1: whether numbers are logits or probabilities
is not guessed from their range. Log-probabilities are logits too, so an ensemble's mean is measured
by passing ``mean_log_probs``. Computed in float32 whatever comes in.

The calibration errors are of a whole set, not of a sample: give them all samples at once, a mean
over batches is another number.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from kd_lightning.uncertainty.reliability import (
    equal_mass,
    equal_width,
    reliability_curve,
    top_prediction,
)


def expected_calibration_error(
    logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"], num_bins: int = 15
) -> Float[Tensor, ""]:
    """How far the probability of the predicted class is from its accuracy, a scalar in [0, 1].

    ``ECE = sum_m (n_m / n) |accuracy_m - confidence_m|`` over bins of equal width, ``((m - 1) / M,
    m / M]``: Guo et al., arXiv 1706.04599, section 2. Zero when, in every bin, the mean
    probability is the accuracy. It has no gradient.

    A probability of exactly 1 belongs to the last bin; torchmetrics 1.9 gives it a bin of its own,
    so the two differ for predictions that saturate.

    Raises:
        ValueError: there is no bin.
    """
    return bin_gaps(logits, labels, num_bins).abs().sum() / len(labels)


def bin_gaps(
    logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"], num_bins: int = 15
) -> Float[Tensor, "M"]:
    """Sum over each bin's samples of (right or not) - probability: what the error adds up.

    Sums, so those of several batches or ranks may be added.

    Raises:
        ValueError: there is no bin.
    """
    confidence, right = top_prediction(logits, labels)
    bins = torch.arange(num_bins, device=confidence.device)
    in_bin = equal_width(confidence, num_bins).unsqueeze(1) == bins
    return (in_bin * (right - confidence).unsqueeze(1)).sum(dim=0)


def adaptive_calibration_error(
    logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"], num_bins: int = 15
) -> Float[Tensor, ""]:
    """``expected_calibration_error`` over bins that hold equally many samples, in [0, 1].

    Bins of equal width hold almost all samples of a sure net in the last one, where what is too
    sure and what is not sure enough cancel. Bins of equal mass: Nguyen & O'Connor, arXiv
    1508.05154; Nixon et al., arXiv 1904.01685, whose own ACE also takes every class, where this
    takes the predicted one. Samples of equal confidence share their accuracy, so the error does
    not depend on the order of the samples. Zero when, in every bin, the mean probability is the
    accuracy. It has no gradient.

    Raises:
        ValueError: there is no bin.
    """
    count, confidence, accuracy = reliability_curve(logits, labels, num_bins, equal_mass)
    return (count * (accuracy - confidence).abs().nan_to_num(0)).sum() / len(labels)


class CalibrationError(Metric):
    """``expected_calibration_error`` of all samples of an epoch, over batches and ranks."""

    full_state_update = False

    def __init__(self, num_bins: int = 15) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.add_state("gaps", torch.zeros(num_bins), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> None:
        self.gaps += bin_gaps(logits, labels, self.num_bins)
        self.count += len(labels)

    def compute(self) -> Float[Tensor, ""]:
        return self.gaps.abs().sum() / self.count


def negative_log_likelihood(
    logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]
) -> Float[Tensor, "B"]:
    """``- log p_y``, in nats: zero when all probability is on the label. The gradient: logits."""
    return F.cross_entropy(logits.float(), labels, reduction="none")


def brier_score(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """``sum_c (p_c - [c = y])^2``, in [0, 2]: Brier (1950), summed over the classes.

    Zero when all probability is on the label, 2 when all is on one other class, ``1 - 1 / C`` when
    the prediction is uniform. The gradient goes to the logits.
    """
    probs = logits.float().softmax(dim=1)
    return (probs - F.one_hot(labels, probs.shape[1])).square().sum(dim=1)
