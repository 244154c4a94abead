"""Calibration: whether a classifier's probabilities agree with its accuracy.

Dimensions: B samples, C classes, M bins.

All functions take logits and apply the softmax here, at temperature 1. They never guess from the
range of the numbers whether they are logits or probabilities. Log-probabilities are valid logits:
pass ``mean_log_probs`` to measure the mean prediction of an ensemble. Computed in float32, whatever
the type of the input.

A calibration error belongs to a whole set of samples. Pass all samples at once: the mean of the
errors of several batches is a different number.
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
    """Expected calibration error (ECE): mean distance of probability and accuracy, in [0, 1].

    ``ECE = sum_m (n_m / n) |accuracy_m - confidence_m|`` over bins of equal width, ``((m - 1) / M,
    m / M]``: Guo et al., arXiv 1706.04599, section 2. The confidence is the probability of the
    predicted class. A scalar. Zero when, in every bin, the mean probability is the accuracy. It has
    no gradient.

    A probability of exactly 1 belongs to the last bin. torchmetrics 1.9 gives it a bin of its own,
    so the two errors differ where probabilities are 1 in float32.

    Raises:
        ValueError: num_bins is not >= 1.
    """
    return bin_gaps(logits, labels, num_bins).abs().sum() / len(labels)


def bin_gaps(
    logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"], num_bins: int = 15
) -> Float[Tensor, "M"]:
    """For each bin, the sum over its samples of (1 if correct, else 0) - probability.

    ``expected_calibration_error`` is made of these sums. Those of several batches or ranks can be
    added.

    Raises:
        ValueError: num_bins is not >= 1.
    """
    confidence, correct = top_prediction(logits, labels)
    bins = torch.arange(num_bins, device=confidence.device)
    in_bin = equal_width(confidence, num_bins).unsqueeze(1) == bins
    return (in_bin * (correct - confidence).unsqueeze(1)).sum(dim=0)


def adaptive_calibration_error(
    logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"], num_bins: int = 15
) -> Float[Tensor, ""]:
    """``expected_calibration_error`` over bins with equal numbers of samples, in [0, 1].

    With bins of equal width, almost all samples of a confident net are in the last bin, where
    overconfidence and underconfidence cancel. Bins of equal mass: Nguyen & O'Connor, arXiv
    1508.05154, and Nixon et al., arXiv 1904.01685. The ACE of Nixon et al. uses the probabilities
    of all classes; this error uses that of the predicted class. Samples of equal confidence share
    their mean accuracy, so the error does not depend on the order of the samples. Zero when, in
    every bin, the mean probability is the accuracy. It has no gradient.

    Raises:
        ValueError: num_bins is not >= 1.
    """
    count, confidence, accuracy = reliability_curve(logits, labels, num_bins, equal_mass)
    return (count * (accuracy - confidence).abs().nan_to_num(0)).sum() / len(labels)


def overconfidence_error(
    logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"], num_bins: int = 15
) -> Float[Tensor, ""]:
    """How far the probability of the predicted class is above the accuracy, in [0, 1].

    ``OE = sum_m (n_m / n) confidence_m max(confidence_m - accuracy_m, 0)`` over the bins of
    ``expected_calibration_error``, of which it is never more: Thulasidasan et al., arXiv
    1905.11001. Zero when no bin is overconfident, however underconfident they are. It
    has no gradient.

    Raises:
        ValueError: num_bins is not >= 1.
    """
    count, confidence, accuracy = reliability_curve(logits, labels, num_bins)
    excess = (confidence - accuracy).clamp_min(0)
    return (count * confidence * excess).nan_to_num(0).sum() / len(labels)


def confidence_gap(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Probability of the predicted class, minus 1 where it is the label, in [-1, 1].

    The mean over samples is the confidence minus the accuracy: above 0 the net is overconfident on
    the whole, below 0 underconfident. Its absolute value is never above
    ``expected_calibration_error``, which adds up the bins without their signs. It has no gradient.
    """
    confidence, correct = top_prediction(logits, labels)
    return confidence - correct


class CalibrationError(Metric):
    """``expected_calibration_error`` of all samples of an epoch, of all batches and ranks."""

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
    """``- log p_y``, in nats. Zero when all probability is on the label.

    The gradient goes to the logits.
    """
    return F.cross_entropy(logits.float(), labels, reduction="none")


def brier_score(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """``sum_c (p_c - [c = y])^2``, in [0, 2]: Brier (1950), summed over the classes.

    Zero when all probability is on the label, 2 when all is on one other class, ``1 - 1 / C`` for a
    uniform prediction. The gradient goes to the logits.
    """
    probs = logits.float().softmax(dim=1)
    return (probs - F.one_hot(labels, probs.shape[1])).square().sum(dim=1)
