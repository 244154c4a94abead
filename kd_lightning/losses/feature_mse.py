"""How far the student's features are from a target. Dimensions: B batch, D features.

Where the gradient goes: into *both* arguments. A target that a student has chosen (see
``guidance.py``) depends on the student, and the released code of stochastic self-distillation lets
the gradient through that choice; a loss that detached its target would undo it in silence. So who
has a target that must not learn (a peer) detaches it; a frozen teacher's carries no gradient.

Computed in float32 whatever comes in.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def feature_mse(
    student_features: Float[Tensor, "B D"], target_features: Float[Tensor, "B D"]
) -> Float[Tensor, "B"]:
    """Mean squared difference of the features: ``(1 / D) ||f_S - target||^2``.

    In squared units of the features, so its weight depends on their scale. Stochastic
    self-distillation, arXiv 2504.14307; the idea is FitNets', arXiv 1412.6550.

    Zero when the features are equal.
    """
    return (student_features.float() - target_features.float()).square().mean(dim=1)


def feature_cosine(
    student_features: Float[Tensor, "B D"], target_features: Float[Tensor, "B D"]
) -> Float[Tensor, "B"]:
    """Angle between the features, whatever their lengths: ``1 - cos(f_S, target)``, in [0, 2].

    Zero, to rounding, when one is a positive multiple of the other. 1, and without gradient, when
    either is zero: that has no angle.
    """
    return 1 - (unit_features(student_features) * unit_features(target_features)).sum(dim=1)


def unit_features(features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
    """``f / ||f||``, in float32; zero features stay zero, and get no gradient.

    Dividing by a small constant there instead, as ``F.cosine_similarity`` does, gives them a
    gradient of 1e8: one input whose ReLUs are all off would then outweigh its batch.
    """
    features = features.float()
    norm = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / norm.masked_fill(norm == 0, torch.inf)
