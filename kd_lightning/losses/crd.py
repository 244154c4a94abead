"""Contrastive representation distillation (CRD), Tian, Krishnan and Isola, arXiv 1910.10699, with
the other samples of the batch as negatives.

    L_i = CE(a_i . b / T, i) + CE(b_i . a / T, i),  a = unit(g_S(s)), b = unit(g_T(t))

The embedding of sample i by the student should be nearer to that of the same sample by the teacher
than to those of other samples, and the reverse. g_S and g_T are linear and both learn; the
teacher's layer gets no gradient. As released: the embeddings, both directions, the temperature and
the weight. Three points differ: the paper takes 16,384 negatives from a memory of the training set,
its objective is noise-contrastive estimation with a critic that depends on their number, and in its
tables negatives have another class. Here the objective is the softmax over the B samples of a batch
(InfoNCE), which needs no memory, no index of samples and no labels; samples of one class are
negatives of each other. Larger batches give more negatives. Under DDP a batch is the part of one
process.

Dimensions: B batch, D features of the student, E features of the teacher.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.losses.feature_loss import FeatureLoss, pooled, unit_features


def contrastive_loss(
    student: Float[Tensor, "B D"], teacher: Float[Tensor, "B D"], temperature: float
) -> Float[Tensor, "B"]:
    """Cross-entropy, in nats, of finding the same sample among the batch by the cosine, from the
    student's embedding and from the teacher's, added. 2 log B if all are equal; 0 for one sample.

    The gradient goes to both. Computed in float32.
    """
    student, teacher = unit_features(student), unit_features(teacher)
    with torch.autocast(student.device.type, enabled=False):  # it would be in half precision
        similarity = student @ teacher.mT / temperature
    same = torch.arange(len(similarity), device=similarity.device)
    from_student = F.cross_entropy(similarity, same, reduction="none")
    return from_student + F.cross_entropy(similarity.mT, same, reduction="none")


class ContrastiveRepresentation(FeatureLoss):
    """``contrastive_loss`` of linear embeddings of two layers; maps are averaged over positions.

    The weight of 0.8 is that of the paper's tables, for the paper's objective.

    Args:
        embedding_size: of g_S and g_T.
        temperature: T, of the cosines.
    """

    field_weight = 0.8

    def __init__(
        self,
        *,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        embedding_size: int = 128,
        temperature: float = 0.07,
    ) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        if embedding_size < 1:
            raise ValueError(f"embedding_size must be >= 1, got {embedding_size}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        self.temperature = temperature
        self.embed_student = nn.Linear(student_shape[0], embedding_size)
        self.embed_teacher = nn.Linear(teacher_shape[0], embedding_size)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student = self.embed_student(pooled(student))
        teacher = self.embed_teacher(pooled(teacher.detach().float()))
        return contrastive_loss(student, teacher, self.temperature)
