"""FitNet hints, Romero et al., arXiv 1412.6550: mean squared difference of two layers."""

from collections.abc import Sequence

from torch import Tensor, nn

from kd_lightning.losses.feature_distance import feature_mse
from kd_lightning.losses.feature_loss import (
    FeatureLoss,
    check_same_kind,
    pointwise,
    pool_to_smaller,
)


class FitNet(FeatureLoss):
    """Mean squared difference of the teacher's layer and a regression of it from the student's.

    Section 2.2 of the paper. As in published tables, the hint is a term beside the others here, and
    not a stage before them. The regressor is a linear layer for vectors and a convolution of size 1
    for maps. It is the identity where the numbers of channels are equal, so that the loss is zero
    for equal layers. The unit is that of the teacher's activations, squared.
    """

    field_weight = 100.0

    def __init__(self, *, student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        check_same_kind("FitNet", student_shape, teacher_shape)
        num_in, num_out = student_shape[0], teacher_shape[0]
        self.regressor: nn.Module = nn.Identity()
        if num_in != num_out:
            self.regressor = pointwise(num_in, num_out, len(student_shape) - 1)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        teacher = teacher.detach().float()
        if student.ndim > 2:  # pooling and regression commute; to pool first is cheaper
            student, teacher = pool_to_smaller(student, teacher)
        return feature_mse(self.regressor(student).flatten(1), teacher.flatten(1))
