"""Histograms of a classifier's confidence. Dimensions: B samples, C classes, M bins.

The bins of [0, 1] have equal width, ``((m - 1) / M, m / M]``; 0 is in the first bin. The counts sum
to B.
"""

from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.uncertainty.confidence import entropy_weight, max_probability_confidence
from kd_lightning.uncertainty.reliability import equal_width


def confidence_histogram(logits: Float[Tensor, "B C"], num_bins: int = 20) -> Int[Tensor, "M"]:
    """Number of samples by the probability of the predicted class, which is at least 1 / C."""
    return _counts(max_probability_confidence(logits), num_bins)


def entropy_histogram(logits: Float[Tensor, "B C"], num_bins: int = 20) -> Int[Tensor, "M"]:
    """Number of samples by the entropy of the prediction, divided by log C.

    0 is a certain prediction, 1 a uniform one. Divided by log C, so that histograms for different
    numbers of classes can be compared.
    """
    return _counts(entropy_weight(logits), num_bins)


def _counts(values: Float[Tensor, "B"], num_bins: int) -> Int[Tensor, "M"]:
    return equal_width(values, num_bins).bincount(minlength=num_bins)
