"""A comprehensive overhaul of feature distillation (OFD), Heo et al., arXiv 1904.01866.

    L = sum over units d(max(t, m_c), r(s)),  d(t, s) = 0 if s <= t <= 0, else (t - s)^2

t and s are the layers *before* a ReLU. What is negative there is cut off, so the size of a negative
value of the teacher says little: it is replaced by the margin m_c if it is smaller (margin ReLU),
and a student that is smaller still has nothing to learn (partial L2). m_c is the mean of the
negative values of a channel. r is a convolution of size 1 with batch norm.

As released: the loss, r and its initial values, the layers before a ReLU, and the weight. The
released code takes the sum over the units and halves it once for each later stage. A stage of a
ResNet has twice as many units as the next one, so this is one weight for the mean over the units of
each stage, as here. Ours: m_c is the mean over the batch of one process, so that the loss needs no
data before training, keeps no state and takes any map; the released code computes it from the
scale and shift of the batch norm before the ReLU. The teacher is in eval mode; there it is in
training mode.

Dimensions: B batch, C channels, then positions.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kd_lightning.losses.feature_loss import (
    NORMS,
    FeatureLoss,
    Maps,
    check_maps,
    pointwise,
    pool_to_smaller,
)

WEIGHT_OF_THE_SUM = 0.001  # on CIFAR; 0.0001 on ImageNet


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
    after the margin. The released weight is 0.001 for the sum over the units.
    """

    def __init__(self, *, student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        check_maps("OFD", student_shape, teacher_shape)
        num_channels, num_dims = teacher_shape[0], len(teacher_shape) - 1
        units = num_channels * math.prod(map(min, student_shape[1:], teacher_shape[1:]))
        self.field_weight = WEIGHT_OF_THE_SUM * units
        project = pointwise(student_shape[0], num_channels, num_dims, bias=False)
        nn.init.kaiming_normal_(project.weight, mode="fan_out")
        self.regressor = nn.Sequential(project, NORMS[num_dims](num_channels))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        teacher = teacher.detach().float()
        target = torch.maximum(teacher, negative_means(teacher))
        student, target = pool_to_smaller(student, target)
        return partial_squared_distance(self.regressor(student).flatten(1), target.flatten(1))
