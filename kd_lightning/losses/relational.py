"""Relational knowledge distillation (RKD), Park et al., arXiv 1904.05068, section 3: the distances
and angles between the samples of a batch.

Dimensions: B batch, D features of the student, E features of the teacher.

A relation is between several samples: a pair (i, j), or a triplet with sample i in the middle. The
value of sample i is the mean over its relations, so the mean over the batch is the mean over all
relations. A sample has no relation with itself. (The usual code counts these relations as zeros,
which makes its mean smaller by a factor of (B - 1) / B or (B - 1) (B - 2) / B^2.) The loss of a
batch of one or two samples is 0: two samples make no triplet, and one pair is its own mean.

Under DDP a batch is the part of one process. Samples on different processes have no relations.

Zero when the two batches are equal up to rotation, reflection, translation and scale. The gradient
goes to the student alone. Computed in float32, whatever the type of the input. Distances are
computed from differences, which are exact for samples that are nearly equal. The differences take
B^2 D numbers, and the angles B^3.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.feature_loss import FeatureLoss, unit_features


def relational_distance(
    student_features: Float[Tensor, "B D"], teacher_features: Float[Tensor, "B E"]
) -> Float[Tensor, "B"]:
    """``mean_j huber(d_S(i, j) - d_T(i, j))`` over j != i: equation 3.

    ``d(i, j) = ||f_i - f_j|| / mu``, where mu is the mean distance of the pairs in the batch.
    huber(x) is x^2 / 2 up to 1, and ``|x| - 1/2`` beyond.
    """
    student, teacher = _relative_distances(student_features), _relative_distances(teacher_features)
    return _huber(student, teacher).sum(dim=1) / max(1, len(student) - 1)


def relational_angle(
    student_features: Float[Tensor, "B D"], teacher_features: Float[Tensor, "B E"]
) -> Float[Tensor, "B"]:
    """``mean_jk huber(cos_S(j, i, k) - cos_T(j, i, k))`` over j != k, both not i: equation 5.

    ``cos(j, i, k)`` is the cosine of the angle at i, between the lines to j and to k. It is 0 where
    j or k is equal to i, because there is no angle. huber as in ``relational_distance``.
    """
    student, teacher = _angle_cosines(student_features), _angle_cosines(teacher_features)
    num = len(student)
    itself = torch.eye(num, dtype=torch.bool, device=student.device)
    relations = _huber(student, teacher).masked_fill(itself, 0)
    return relations.sum(dim=(1, 2)) / max(1, (num - 1) * (num - 2))


def _relative_distances(features: Float[Tensor, "B D"]) -> Float[Tensor, "B B"]:
    """Distances of all pairs, divided by their mean over different samples; 0 if all are equal."""
    distances = torch.linalg.vector_norm(_differences(features), dim=-1)
    num = len(distances)
    mean = distances.sum() / max(1, num * (num - 1))
    return distances / mean.masked_fill(mean == 0, torch.inf)


def _angle_cosines(features: Float[Tensor, "B D"]) -> Float[Tensor, "B B B"]:
    """[i, j, k]: cosine of the angle at i between the lines to j and to k."""
    lines = unit_features(_differences(features))
    # with autocast the product would be in half precision
    with torch.autocast(lines.device.type, enabled=False):
        return lines @ lines.mT


def _differences(features: Float[Tensor, "B D"]) -> Float[Tensor, "B B D"]:
    """[i, j]: ``f_j - f_i``."""
    features = features.float()
    return features[None] - features[:, None]


def _huber(student: Tensor, teacher: Tensor) -> Tensor:
    return F.huber_loss(student, teacher.detach(), reduction="none")


class Relational(FeatureLoss):
    """Distances and angles between the samples, as two layers of any shapes see them.

    ``distance_weight * relational_distance + angle_weight * relational_angle``. The paper gives
    them weights of 25 and 50 for classification (RKD-DA).

    Args:
        distance_weight: of the distances; 0: angles alone (RKD-A).
        angle_weight: of the angles; 0: distances alone (RKD-D).
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
