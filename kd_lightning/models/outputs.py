"""The output of every net. Dimensions: B batch, C classes, D features."""

from typing import NamedTuple

from torch import Tensor


class ModelOutput(NamedTuple):
    """A net's output for a batch.

    Attributes:
        logits: unnormalized log-probabilities, (B, C).
        features: (B, D), the input of the classifier, flattened, *before* its dropout.
    """

    logits: Tensor
    features: Tensor
