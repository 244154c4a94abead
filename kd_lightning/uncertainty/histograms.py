"""How sure a classifier is of its samples, as counts. Dimensions: B samples, C classes, M bins.

Both are over bins of equal width of [0, 1], ``((m - 1) / M, m / M]``, 0 in the first, and add up
to B.
"""

from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.uncertainty.confidence import entropy_weight, max_probability_confidence
from kd_lightning.uncertainty.reliability import equal_width


def confidence_histogram(logits: Float[Tensor, "B C"], num_bins: int = 20) -> Int[Tensor, "M"]:
    """Samples by the probability of the predicted class. None is below 1 / C."""
    return _counts(max_probability_confidence(logits), num_bins)


def entropy_histogram(logits: Float[Tensor, "B C"], num_bins: int = 20) -> Int[Tensor, "M"]:
    """Samples by the entropy of the prediction, as a share of log C: 0 is sure, 1 is uniform.

    A share, so that nets of different numbers of classes have one axis; times log C it is nats.
    """
    return _counts(entropy_weight(logits), num_bins)


def _counts(values: Float[Tensor, "B"], num_bins: int) -> Int[Tensor, "M"]:
    return equal_width(values, num_bins).bincount(minlength=num_bins)
