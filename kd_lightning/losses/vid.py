"""Variational information distillation (VID), Ahn et al., arXiv 1904.05835.

    L = -log q(t | s) = sum over units [ log sigma_c + (t - mu(s))^2 / (2 sigma_c^2) ] + constant

The student's layer s should hold the information that the teacher's layer t has: -L is a bound of
their mutual information, up to the teacher's entropy. The mean mu is a regression from the
student's layer, and the variance sigma_c^2 of each channel is learned: channels that the student
cannot predict count less.

As in the code of the field's tables, which is that of the authors: the mean over the units instead
of their sum, without the constant; mu of maps; the variance, a softplus with 1e-5 added, and its
first value. Ours is mu of vectors, which are not compared there.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.losses.feature_loss import (
    FeatureLoss,
    check_same_kind,
    pointwise,
    pool_to_smaller,
)

SMALLEST_VARIANCE = 1e-5


class VariationalInformation(FeatureLoss):
    """Negative log likelihood of the teacher's layer, given the student's: nats, mean over units.

    It has no lower bound of zero: where the regression is good and the variance small, it is
    negative. mu is linear for vectors. For maps it is three convolutions of size 1 without bias,
    with a ReLU between each two. The larger map is pooled to the size of the smaller.

    Args:
        initial_variance: sigma_c^2 at the start, for all channels.
    """

    field_weight = 1.0

    def __init__(
        self,
        *,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        initial_variance: float = 5.0,
    ) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        check_same_kind("VID", student_shape, teacher_shape)
        if not SMALLEST_VARIANCE < initial_variance < math.inf:
            raise ValueError(
                f"initial_variance must be > {SMALLEST_VARIANCE}, got {initial_variance}"
            )
        num_channels = teacher_shape[0]
        self.regressor = mean_regressor(student_shape[0], num_channels, len(student_shape) - 1)
        start = torch.tensor(initial_variance - SMALLEST_VARIANCE, dtype=torch.float64)
        inverse_softplus = start + torch.log(-torch.expm1(-start))
        self.raw_variance = nn.Parameter(torch.full((num_channels,), inverse_softplus.item()))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        teacher = teacher.detach().float()
        if student.ndim > 2:
            student, teacher = pool_to_smaller(student, teacher)
        error = teacher - self.regressor(student).float()
        squared = error.square().reshape(*error.shape[:2], -1).mean(dim=2)
        variance = F.softplus(self.raw_variance.float()) + SMALLEST_VARIANCE
        return 0.5 * (squared / variance + variance.log()).mean(dim=1)


def mean_regressor(num_in: int, num_out: int, num_dims: int) -> nn.Module:
    """mu: from the student's channels to the teacher's; ``num_dims`` as in ``pointwise``."""
    if num_dims == 0:
        return pointwise(num_in, num_out, num_dims)
    layers: list[nn.Module] = []
    for channels in (num_in, num_out, num_out):
        layers += [pointwise(channels, num_out, num_dims, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
