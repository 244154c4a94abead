"""Attention transfer, Zagoruyko & Komodakis, arXiv 1612.03928: the student is active at the same
positions as the teacher.

Dimensions: B batch, C channels, then the positions: (H, W) of images or (L) of series. Student and
teacher may differ in the number of channels and of positions.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from kd_lightning.losses.feature_distance import feature_mse
from kd_lightning.losses.feature_loss import (
    FeatureLoss,
    Maps,
    check_maps,
    pool_to_smaller,
    unit_features,
)


def attention_map(maps: Maps, power: float = 2.0) -> Float[Tensor, "B N"]:
    """Where a layer is active: ``q = v / ||v||_2``, ``v_n = sum_c |A_cn|^power``, N positions.

    Section 3.1 of the paper. The result does not depend on the order and the signs of the channels,
    nor on the scale of the activations. A map that is zero everywhere stays zero.

    Args:
        power: p of the paper, at least 1. The larger it is, the more the strongest channel counts.
    """
    return unit_features(maps.float().abs().pow(power).sum(dim=1).flatten(1))


def attention_transfer_loss(
    student_maps: Maps, teacher_maps: Maps, power: float = 2.0
) -> Float[Tensor, "B"]:
    """Mean squared difference of the attention maps: ``(1 / N) ||q_S - q_T||^2``.

    This is the loss of the authors' code, and the usual weight of 1000 belongs to it; the paper
    writes the norm itself. Maps of different sizes are pooled to the smaller size first.

    Zero when the two maps are equal up to the order, the signs and the scale of their channels.
    Always zero for a map with a single position. The gradient goes to the student alone. Computed
    in float32.

    Args:
        power: see ``attention_map``.
    """
    student, teacher = pool_to_smaller(student_maps.float(), teacher_maps.detach().float())
    return feature_mse(attention_map(student, power), attention_map(teacher, power))


class AttentionTransfer(FeatureLoss):
    """``attention_transfer_loss`` of one pair of layers.

    Args:
        power: of the activations, before they are summed over the channels. Below 1 the slope at
            the zero of a ReLU would be infinite.
    """

    field_weight = 1000.0

    def __init__(
        self, *, student_shape: Sequence[int], teacher_shape: Sequence[int], power: float = 2.0
    ) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        if not 1 <= power < float("inf"):
            raise ValueError(f"power must be >= 1, got {power}")
        check_maps("attention transfer", student_shape, teacher_shape)
        self.power = power

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return attention_transfer_loss(student, teacher, self.power)
