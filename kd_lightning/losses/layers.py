"""What a student's layer learns from its teacher's: a loss for a pair of layers and their shapes.

Each is built once for a pair, from the shapes of what the two layers give for one sample, and then
takes what they give for a batch. A shape has one size, of a vector, or channels and positions, of a
map: (C, L) or (C, H, W). Sizes of positions that differ are brought to the smaller by adaptive
average pooling.

Values are one per sample, (B,); the gradient goes to the student's layer, and to a regressor where
there is one, never to the teacher's.
"""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from kd_lightning.losses.features import feature_mse
from kd_lightning.losses.maps import attention_transfer, pool_to_smaller
from kd_lightning.losses.relations import relational_angle, relational_distance

REGRESSORS = {2: nn.Conv1d, 3: nn.Conv2d}


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


class AttentionTransfer(FeatureLoss):
    """The student is active where the teacher is: ``maps.attention_transfer``.

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


class Relational(FeatureLoss):
    """The student's samples lie to each other as the teacher's do, in layers of any two shapes.

    ``distance_weight * relational_distance + angle_weight * relational_angle``: Park et al.,
    arXiv 1904.05068, who give 25 and 50 to the two for classification (RKD-DA).

    Args:
        distance_weight: of distances; 0: angles alone (RKD-A).
        angle_weight: of angles; 0: distances alone (RKD-D).
    """

    field_weight = 1.0

    def __init__(
        self,
        *,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
    ) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        weights = (distance_weight, angle_weight)
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ValueError(
                "distance_weight and angle_weight must be >= 0, and one of them > 0, got "
                f"{distance_weight} and {angle_weight}"
            )
        self.parts = [
            (weight, part)
            for weight, part in zip(weights, (relational_distance, relational_angle), strict=True)
            if weight
        ]

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = student.flatten(1), teacher.flatten(1)
        return sum(weight * part(student, teacher) for weight, part in self.parts)


def in_words(shape: Sequence[int]) -> str:
    """ "a vector of 64", "a map of 64 x 8 x 8"."""
    kind = "vector" if len(shape) == 1 else "map"
    return f"a {kind} of {' x '.join(map(str, shape))}"
