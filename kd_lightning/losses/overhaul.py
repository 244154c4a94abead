"""A comprehensive overhaul of feature distillation (OFD), Heo et al., arXiv 1904.01866.

    L = sum over units d(max(t, m_c), r(s)),  d(t, s) = 0 if s <= t <= 0, else (t - s)^2

t and s are the layers *before* a ReLU. What is negative there is cut off, so the size of a negative
value of the teacher says little: it is replaced by the margin m_c if it is smaller (margin ReLU),
and a student that is smaller still has nothing to learn (partial L2). m_c is the mean of the
negative values of a channel. r is a convolution of size 1 with batch norm.

After the paper's description. The paper computes m_c once for all training images; here it is that
of the batch, in one process, so that the loss needs no data before training and keeps no state.
Ours is the mean over the units where the paper has the sum, and with it the weight.

Dimensions: B batch, C channels, then positions.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kd_lightning.losses.feature_loss import (
    FeatureLoss,
    Maps,
    channel_map,
    check_maps,
    pool_to_smaller,
)

NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


def negative_means(maps: Maps) -> Float[Tensor, "C *ones"]:
    """Mean of the negative values of each channel over a batch; 0 for a channel without any."""
    others = [dim for dim in range(maps.ndim) if dim != 1]
    num_negative = (maps < 0).sum(dim=others, keepdim=True)
    return (maps.clamp(max=0).sum(dim=others, keepdim=True) / num_negative.clamp(min=1))[0]


def partial_squared_distance(
    student: Float[Tensor, "B D"], target: Float[Tensor, "B D"]
) -> Float[Tensor, "B"]:
    """Mean squared difference; 0 where the target is not positive and the student is below it."""
    student, target = student.float(), target.float()
    has_nothing_to_learn = (student <= target) & (target <= 0)
    return (student - target).square().masked_fill(has_nothing_to_learn, 0).mean(dim=1)


class Overhaul(FeatureLoss):
    """Partial squared distance of the student's regression to the teacher's layer with its margin.

    The unit is that of the teacher's activations, squared. Layers before a ReLU are for example the
    batch norms of pre-activation nets. After a ReLU there is no negative value, so the margin is 0
    and only the partial distance remains. The larger map is pooled to the size of the smaller,
    after the margin. The field's weight is not known for the mean; 1 is ours.
    """

    field_weight = 1.0

    def __init__(self, *, student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        check_maps("OFD", student_shape, teacher_shape)
        num_channels = teacher_shape[0]
        self.regressor = nn.Sequential(
            channel_map(student_shape[0], num_channels, student_shape, bias=False),
            NORMS[len(student_shape) - 1](num_channels),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        teacher = teacher.detach().float()
        target = torch.maximum(teacher, negative_means(teacher))
        student, target = pool_to_smaller(student, target)
        return partial_squared_distance(self.regressor(student).flatten(1), target.flatten(1))
