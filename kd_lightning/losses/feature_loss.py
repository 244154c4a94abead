"""What the losses on features share: one size for two maps, unit length, and a class for layers.

A feature loss is built for one pair of layers, one of the student and one of the teacher, from the
shapes of their outputs for one sample. It is then called with their outputs for a batch. A shape
has one size (a vector), or channels and positions (a feature map): (C, L) or (C, H, W).

Values are one per sample, (B,). The gradient goes to the student's layer, and to the regressor if
the loss has one. It never goes to the teacher's layer.

Dimensions: B batch, C channels, D features. N stands for any other dimensions.
"""

import operator
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Maps = Float[Tensor, "B C *size"]
CONVS = {1: nn.Conv1d, 2: nn.Conv2d}  # by the number of dimensions of the positions
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


class ShapeMismatch(ValueError):
    """This loss cannot compare these two layers."""


class FeatureLoss(nn.Module):
    """The loss of one pair of layers.

    Args:
        student_shape, teacher_shape: of the layers' outputs for one sample.

    Attributes:
        field_weight: the weight that published tables give this loss, where the loss of the labels
            has weight 1; or ours, if the loss says so. It may depend on the shapes.
        needs_indices: whether it is called with ``index`` too, the numbers of the batch's samples
            in the training set, whose classes ``allocate`` gets before the training begins.

    Raises:
        ShapeMismatch: the layers cannot be compared.
    """

    field_weight: float
    needs_indices: ClassVar[bool] = False

    def __init__(self, *, student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
        super().__init__()

    def forward(
        self, student: Float[Tensor, "B *shape"], teacher: Float[Tensor, "B *other"]
    ) -> Float[Tensor, "B"]:
        raise NotImplementedError


def check_dimensions(loss: str, student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
    """Raises ``ShapeMismatch`` for two maps of different numbers of dimensions."""
    numbers = {len(student_shape), len(teacher_shape)}
    if len(numbers - {1}) > 1:
        raise ShapeMismatch(
            f"{loss} compares vectors and maps, and maps with maps of as many dimensions, got "
            f"{describe_shape(student_shape)} and {describe_shape(teacher_shape)}"
        )


def average_pool(x: Maps, size: Sequence[int]) -> Maps:
    """Averages of feature maps over a grid of this size, as torch's adaptive pooling.

    That has no deterministic gradient on a GPU. Where the grid divides the map, this one has.
    """
    lengths = x.shape[2:]
    if any(map(operator.mod, lengths, size)):
        pool = F.adaptive_avg_pool1d if len(size) == 1 else F.adaptive_avg_pool2d
        return pool(x, list(size))
    pool = F.avg_pool1d if len(size) == 1 else F.avg_pool2d
    return pool(x, list(map(operator.floordiv, lengths, size)))


def pool_to_smaller(a: Maps, b: Maps) -> tuple[Maps, Maps]:
    """Average pooling of two feature maps to the smaller of their sizes.

    The smaller size is taken for each dimension. A map that already has it is returned unchanged.
    """
    size = torch.Size(map(min, a.shape[2:], b.shape[2:]))
    smaller = [x if x.shape[2:] == size else average_pool(x, size) for x in (a, b)]
    return smaller[0], smaller[1]


def pooled(layer: Float[Tensor, "B C *size"]) -> Float[Tensor, "B C"]:
    """The mean of each channel over its positions; vectors stay as they are."""
    return layer.flatten(2).mean(2) if layer.ndim > 2 else layer


def unit_features(features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
    """``f / ||f||``, in float32. Features of zero stay zero and get no gradient.

    ``F.cosine_similarity`` divides zero features by a small constant instead. This gives them a
    gradient of 1e8, so that one input whose ReLUs are all off would outweigh the rest of its batch.
    """
    features = features.float()
    norm = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / norm.masked_fill(norm == 0, torch.inf)


def pointwise(num_in: int, num_out: int, num_dims: int, bias: bool = True) -> nn.Module:
    """A linear map of the channels: a linear layer for vectors, a convolution of size 1 for maps.

    Args:
        num_dims: of the positions: 0 for vectors, 1 for series, 2 for images.
    """
    if num_dims == 0:
        return nn.Linear(num_in, num_out, bias=bias)
    return CONVS[num_dims](num_in, num_out, 1, bias=bias)


def check_same_kind(name: str, student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
    """Raises ``ShapeMismatch`` unless both are vectors, or maps of as many dimensions."""
    if len(student_shape) != len(teacher_shape):
        raise ShapeMismatch(
            f"{name} compares vectors with vectors and maps with maps of as many dimensions, "
            f"got {describe_shape(student_shape)} and {describe_shape(teacher_shape)}"
        )


def check_maps(name: str, student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
    """Raises ``ShapeMismatch`` unless both are maps that keep more than one position when they are
    pooled to the smaller size.
    """
    sizes = [shape[1:] for shape in (student_shape, teacher_shape)]
    if len(sizes[0]) != len(sizes[1]) or max(map(min, *sizes), default=1) == 1:
        raise ShapeMismatch(
            f"{name} compares maps, which have channels and more than one position, "
            f"got {describe_shape(student_shape)} and {describe_shape(teacher_shape)}"
        )


def describe_shape(shape: Sequence[int]) -> str:
    """ "a vector of 64", "a map of 64 x 8 x 8"."""
    kind = "vector" if len(shape) == 1 else "map"
    return f"a {kind} of {' x '.join(map(str, shape))}"
