"""What every net returns. Dimensions: B batch, C classes, D features."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class ModelOutput(NamedTuple):
    """A net's answer for a batch.

    Attributes:
        logits: unnormalised log-probabilities.
        features: the classifier's input, flattened, *before* its dropout.
    """

    logits: Float[Tensor, "B C"]
    features: Float[Tensor, "B D"]
