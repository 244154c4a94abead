"""The output of every net. Dimensions: B batch, C classes, D features."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class ModelOutput(NamedTuple):
    """A net's output for a batch.

    Attributes:
        logits: unnormalized log-probabilities.
        features: the input of the classifier, flattened, *before* its dropout.
    """

    logits: Float[Tensor, "B C"]
    features: Float[Tensor, "B D"]
