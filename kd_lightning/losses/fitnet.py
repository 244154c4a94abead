"""FitNet's hints: the squared difference to the teacher's layer, arXiv 1412.6550."""

from collections.abc import Sequence

from torch import Tensor, nn

from kd_lightning.losses.attention_transfer import pool_to_smaller
from kd_lightning.losses.feature_loss import FeatureLoss, ShapeMismatch, in_words
from kd_lightning.losses.feature_mse import feature_mse

REGRESSORS = {2: nn.Conv1d, 3: nn.Conv2d}


class FitNet(FeatureLoss):
    """The teacher's layer is what a regressor makes of the student's: mean squared difference.

    Hints, Romero et al., arXiv 1412.6550, section 2.2; here, as in the field's tables, not a stage
    before distillation but a term beside it. The regressor, a linear layer or a 1-convolution,
    stands where the numbers of channels differ, and is the identity elsewhere: the layers of equal
    nets have a loss of zero. In squared units of the teacher's activations.
    """

    field_weight = 100.0

    def __init__(self, *, student_shape: Sequence[int], teacher_shape: Sequence[int]) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        if len(student_shape) != len(teacher_shape):
            raise ShapeMismatch(
                "FitNet compares vectors with vectors and maps with maps of as many dimensions, "
                f"got {in_words(student_shape)} and {in_words(teacher_shape)}"
            )
        num_in, num_out = student_shape[0], teacher_shape[0]
        self.regressor: nn.Module = nn.Identity()
        if num_in != num_out and len(student_shape) == 1:
            self.regressor = nn.Linear(num_in, num_out)
        elif num_in != num_out:
            self.regressor = REGRESSORS[len(student_shape)](num_in, num_out, 1)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        teacher = teacher.detach().float()
        if student.ndim > 2:  # before the regressor: the two commute, and this is cheaper
            student, teacher = pool_to_smaller(student, teacher)
        return feature_mse(self.regressor(student).flatten(1), teacher.flatten(1))
