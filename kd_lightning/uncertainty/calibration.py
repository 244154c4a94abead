"""Whether a classifier's probabilities can be believed. Dimensions: B samples, C classes.

All take logits and soften them here, at temperature 1: whether numbers are logits or probabilities
is not guessed from their range. Log-probabilities are logits too, so an ensemble's mean is measured
by passing ``mean_log_probs``. Computed in float32 whatever comes in.

``expected_calibration_error`` is the one function of this folder whose value is of a whole set, not
of a sample: give it all samples at once, a mean over batches is another number.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


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
    if num_bins < 1:
        raise ValueError(f"num_bins must be >= 1, got {num_bins}")
    confidence, predicted = logits.detach().float().softmax(dim=1).max(dim=1)
    gap = (predicted == labels).float() - confidence
    edges = torch.linspace(0, 1, num_bins + 1, device=gap.device)
    in_bin = F.one_hot(torch.bucketize(confidence, edges[1:-1]), num_bins)
    return (in_bin * gap.unsqueeze(1)).sum(dim=0)


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
