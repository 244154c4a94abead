"""What a net looks at: losses on maps, which have channels and positions.

Dimensions: B batch, C channels, then the positions: (H, W) of images or (L) of series. Student and
teacher may differ in both.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.feature_loss import FeatureLoss, ShapeMismatch, in_words
from kd_lightning.losses.feature_mse import feature_mse, unit_features

Maps = Float[Tensor, "B C *size"]


def pool_to_smaller(a: Maps, b: Maps) -> tuple[Maps, Maps]:
    """Both maps at the smaller of their sizes, by adaptive average pooling of the larger.

    Where they agree, each is returned as it is.
    """
    size = torch.Size(map(min, a.shape[2:], b.shape[2:]))
    pool = F.adaptive_avg_pool1d if len(size) == 1 else F.adaptive_avg_pool2d
    pooled = [x if x.shape[2:] == size else pool(x, size) for x in (a, b)]
    return pooled[0], pooled[1]


def attention_map(maps: Maps, power: float = 2.0) -> Float[Tensor, "B N"]:
    """Where a layer is active: ``q = v / ||v||_2``, ``v_n = sum_c |A_cn|^power``, N positions.

    Zagoruyko & Komodakis, arXiv 1612.03928, section 3.1. The order and the signs of the channels
    do not matter, nor does the scale of the activations. A map that is zero everywhere stays zero.

    Args:
        power: p of the paper, at least 1; the larger, the more the strongest channel counts.
    """
    return unit_features(maps.float().abs().pow(power).sum(dim=1).flatten(1))


def attention_transfer(
    student_maps: Maps, teacher_maps: Maps, power: float = 2.0
) -> Float[Tensor, "B"]:
    """How far the student looks elsewhere: ``(1 / N) ||q_S - q_T||^2`` of their ``attention_map``.

    Zagoruyko & Komodakis, arXiv 1612.03928, as in their code, which the field's weight of 1000 is
    for; the paper writes the norm itself. Maps of different sizes are pooled to the smaller first.

    Zero when the two maps are equal up to the order, the signs and the scale of their channels;
    always where a map has a single position. The gradient goes to the student alone. Computed in
    float32.

    Args:
        power: as ``attention_map``.
    """
    student, teacher = pool_to_smaller(student_maps.float(), teacher_maps.detach().float())
    return feature_mse(attention_map(student, power), attention_map(teacher, power))


class AttentionTransfer(FeatureLoss):
    """The student is active where the teacher is: ``attention_transfer``.

    Zagoruyko & Komodakis, arXiv 1612.03928.

    Args:
        power: of the activations that are summed over the channels; below 1 the slope at a ReLU's
            zero would be infinite.
    """

    field_weight = 1000.0

    def __init__(
        self, *, student_shape: Sequence[int], teacher_shape: Sequence[int], power: float = 2.0
    ) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        if not 1 <= power < float("inf"):
            raise ValueError(f"power must be >= 1, got {power}")
        sizes = [shape[1:] for shape in (student_shape, teacher_shape)]
        if len(sizes[0]) != len(sizes[1]) or max(map(min, *sizes), default=1) == 1:
            raise ShapeMismatch(
                "attention transfer compares maps, which have channels and more than one position, "
                f"got {in_words(student_shape)} and {in_words(teacher_shape)}"
            )
        self.power = power

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return attention_transfer(student, teacher, self.power)
