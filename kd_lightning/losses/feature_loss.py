"""The loss of a pair of layers, one of the student and one of the teacher: what all of them share.

A feature loss is built once for a pair, from the shapes that the two layers return for one sample.
It is then called with what they return for a batch. A shape has one size (a vector), or channels
and positions (a feature map): (C, L) or (C, H, W). Positions that differ in number are pooled to
the smaller size by adaptive average pooling.

Values are one per sample, (B,). The gradient goes to the student's layer, and to a regressor where
there is one, never to the teacher's layer.
"""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn


class ShapeMismatch(ValueError):
    """These two layers cannot be compared by this loss."""


class FeatureLoss(nn.Module):
    """The loss of one pair of layers.

    Args:
        student_shape, teacher_shape: of what the layers give for one sample.

    Attributes:
        field_weight: the weight that the field's tables give this loss beside one of 1 for the
            labels.

    Raises:
        ShapeMismatch: the layers cannot be compared.
    """

    field_weight: ClassVar[float]

    def __init__(self, *, student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
        super().__init__()

    def forward(
        self, student: Float[Tensor, "B *shape"], teacher: Float[Tensor, "B *other"]
    ) -> Float[Tensor, "B"]:
        raise NotImplementedError


def in_words(shape: Sequence[int]) -> str:
    """ "a vector of 64", "a map of 64 x 8 x 8"."""
    kind = "vector" if len(shape) == 1 else "map"
    return f"a {kind} of {' x '.join(map(str, shape))}"
