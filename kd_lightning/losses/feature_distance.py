"""How far the student's features are from a target. Dimensions: B batch, D features.

The gradient goes to *both* arguments. A target that the student has chosen (``guidance.py``)
depends on the student, and the released code of stochastic self-distillation lets the gradient
through that choice. A loss that detached its target would remove this gradient silently. The caller
therefore detaches a target that must not learn, such as a peer. The features of a frozen teacher
carry no gradient anyway.

Computed in float32, whatever the type of the input.
"""

from jaxtyping import Float
from torch import Tensor

from kd_lightning.losses.feature_loss import unit_features


def feature_mse(
    student_features: Float[Tensor, "B D"], target_features: Float[Tensor, "B D"]
) -> Float[Tensor, "B"]:
    """Mean squared difference of the features: ``(1 / D) ||f_S - target||^2``.

    The unit is that of the features, squared, so the weight of this loss depends on their scale.
    Stochastic self-distillation, arXiv 2504.14307; the idea is from FitNets, arXiv 1412.6550.

    Zero when the features are equal.
    """
    return (student_features.float() - target_features.float()).square().mean(dim=1)


def feature_cosine(
    student_features: Float[Tensor, "B D"], target_features: Float[Tensor, "B D"]
) -> Float[Tensor, "B"]:
    """Cosine distance of the features, ``1 - cos(f_S, target)``, in [0, 2].

    It does not depend on the lengths of the features. Zero, up to rounding, when one is a positive
    multiple of the other. 1, and without gradient, when either is zero: a zero vector has no angle.
    """
    return 1 - (unit_features(student_features) * unit_features(target_features)).sum(dim=1)


def active_squared_distance(
    student_features: Float[Tensor, "B D"], target_features: Float[Tensor, "B D"]
) -> Float[Tensor, "B"]:
    """Squared difference of the features where one of the two is positive, summed over D.

    ``sum_d 1[f_S > 0 or target > 0] (f_S - target)^2``, as teacher evolution (arXiv 2110.00329) has
    it. Features after a ReLU are never negative; for them it is the plain squared distance.

    Zero when the positive features are equal.
    """
    student, target = student_features.float(), target_features.float()
    is_active = (student > 0) | (target > 0)
    return ((student - target).square() * is_active).sum(dim=1)
