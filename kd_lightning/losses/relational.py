"""How the samples of a batch lie to each other, whatever space they lie in.

Relational knowledge distillation, Park et al., arXiv 1904.05068, section 3. Dimensions: B batch,
D features, which may differ between student and teacher.

A relation is of several samples, so the value of sample i is the mean over the relations that it
heads: its pairs (i, j), its triplets with i in the middle; the mean over the batch is then the mean
over all relations. Relations of a sample with itself do not count (in the field's code they do, as
zeros, and make its mean a factor (B - 1) / B or (B - 1) (B - 2) / B^2 smaller). A batch of one or
two is worth 0: two samples make no triplet, and one pair is its own mean.

Under DDP a batch is a process's share: samples on different processes have no relations.

Zero when the two batches are equal up to rotation, reflection, translation and scale. The gradient
goes to the student alone. Computed in float32 whatever comes in, from differences, which are exact
for samples that are nearly equal: that takes B^2 D numbers, and the angles B^3.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.feature_loss import FeatureLoss
from kd_lightning.losses.feature_mse import unit_features


def relational_distance(
    student_features: Float[Tensor, "B D"], teacher_features: Float[Tensor, "B E"]
) -> Float[Tensor, "B"]:
    """``mean_j huber(d_S(i, j) - d_T(i, j))`` over j != i: equation 3.

    ``d(i, j) = ||f_i - f_j|| / mu``, mu the mean distance of the batch's pairs, so in units of that
    mean; huber(x) is x^2 / 2 up to 1, then ``|x| - 1/2``.
    """
    student, teacher = relative_distances(student_features), relative_distances(teacher_features)
    return huber(student, teacher).sum(dim=1) / max(1, len(student) - 1)


def relational_angle(
    student_features: Float[Tensor, "B D"], teacher_features: Float[Tensor, "B E"]
) -> Float[Tensor, "B"]:
    """``mean_jk huber(cos_S(j, i, k) - cos_T(j, i, k))`` over j != k, both not i: equation 5.

    ``cos(j, i, k)`` is of the angle at i, between the lines to j and to k; 0 where i is equal to
    one of them, which leaves no angle. Huber's function as in ``relational_distance``.
    """
    student, teacher = angle_cosines(student_features), angle_cosines(teacher_features)
    num = len(student)
    itself = torch.eye(num, dtype=torch.bool, device=student.device)
    relations = huber(student, teacher).masked_fill(itself, 0)
    return relations.sum(dim=(1, 2)) / max(1, (num - 1) * (num - 2))


def relative_distances(features: Float[Tensor, "B D"]) -> Float[Tensor, "B B"]:
    """Distances of all pairs, divided by the mean over the pairs of two; 0 where all are equal."""
    distances = torch.linalg.vector_norm(differences(features), dim=-1)
    num = len(distances)
    mean = distances.sum() / max(1, num * (num - 1))
    return distances / mean.masked_fill(mean == 0, torch.inf)


def angle_cosines(features: Float[Tensor, "B D"]) -> Float[Tensor, "B B B"]:
    """[i, j, k]: cosine of the angle at i between the lines to j and to k."""
    lines = unit_features(differences(features))
    with torch.autocast(lines.device.type, enabled=False):  # or the product is in half precision
        return lines @ lines.mT


def differences(features: Float[Tensor, "B D"]) -> Float[Tensor, "B B D"]:
    """[i, j]: from i to j."""
    features = features.float()
    return features[None] - features[:, None]


def huber(student: Tensor, teacher: Tensor) -> Tensor:
    return F.huber_loss(student, teacher.detach(), reduction="none")


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
