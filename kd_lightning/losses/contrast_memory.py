"""Contrastive representation distillation (CRD) as released, Tian, Krishnan and Isola, arXiv
1910.10699: noise-contrastive estimation with negatives from a memory of the training set.

    L_i = sum over a in {student's, teacher's embedding of sample i} of
          - log h(a, i) - sum of log(1 - h(a, k)) over K negatives k of other classes
    h(a, k) = u / (u + K / N),  u = exp(a . m_k / T) / Z
    m_k <- unit(momentum * m_k + (1 - momentum) * b)  when sample k is in a batch, after its loss

m_k is the memory's slot of sample k from the other net than a's: the student's embedding is
compared with the teacher's slots, and the reverse. b is sample k's embedding by the slot's own net.
A slot has no gradient. Z, one for each net, is what makes the mean of u over the first batch 1 / N,
and stays. As released: all of this, with the random slots at the beginning. Two points are ours: a
negative may be drawn twice (there: only where there are fewer than K of other classes), and where
several processes train, each writes the embeddings of all of them, so that they have one memory.

Dimensions: N training samples, B batch, D size of an embedding, K negatives. The first dimension of
size 2 is the net: the student, the teacher.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.crd import ContrastiveRepresentation
from kd_lightning.losses.feature_loss import pooled, unit_features

UNKNOWN = math.inf  # the logarithm of Z before the first batch


class ContrastWithMemory(ContrastiveRepresentation):
    """The loss of each sample of a batch, in nats, and the memory, which it updates in training.

    ``allocate`` must be called before. The memory and Z are buffers that a checkpoint holds: 8 D N
    bytes. The scores of a batch take 8 B N bytes.

    Args:
        num_negatives: K.
        momentum: of a slot, in [0, 1); 0: a slot is the sample's last embedding.
        crd: ``embedding_size`` and ``temperature``.
    """

    needs_indices: ClassVar[bool] = True
    memory: Float[Tensor, "2 N D"]
    log_z: Float[Tensor, "2"]
    by_class: Int[Tensor, "N"]
    first: Int[Tensor, "N"]
    count: Int[Tensor, "N"]

    def __init__(
        self,
        *,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        num_negatives: int = 16384,
        momentum: float = 0.5,
        **crd: Any,
    ) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape, **crd)
        if num_negatives < 1:
            raise ValueError(f"num_negatives must be >= 1, got {num_negatives}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.num_negatives = num_negatives
        self.momentum = momentum
        self.register_buffer("memory", torch.zeros(2, 0, self.embed_student.out_features))
        self.register_buffer("log_z", torch.full((2,), UNKNOWN))
        for name in ("by_class", "first", "count"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64), persistent=False)

    def allocate(self, y: Int[Tensor, "N"]) -> None:
        """Random slots, from the default generator, for training samples of these classes."""
        bound = math.sqrt(3 / self.memory.shape[2])  # a slot has length 1 on average
        self.memory = self.memory.new_empty(2, len(y), self.memory.shape[2])
        self.memory.uniform_(-bound, bound)
        self.log_z.fill_(UNKNOWN)
        counts = y.bincount()
        place = self.memory.device
        self.by_class = y.argsort(stable=True).to(place)
        self.first = (counts.cumsum(0) - counts)[y].to(place)
        self.count = counts[y].to(place)

    def forward(
        self, student: Tensor, teacher: Tensor, index: Int[Tensor, "B"]
    ) -> Float[Tensor, "B"]:
        """
        Args:
            student, teacher: the layers' outputs.
            index: of the batch's samples in the training set.
        """
        student = self.embed_student(pooled(student))
        teacher = self.embed_teacher(pooled(teacher.detach().float()))
        anchors = unit_features(torch.stack([student, teacher]))
        compared = torch.cat([index.unsqueeze(1), self.negatives(index)], dim=1)
        with torch.autocast(anchors.device.type, enabled=False):
            # flipped is copied: the update must not change what the backward pass reads
            scores = anchors @ self.memory.flip(0).mT / self.temperature
        scores = scores.gather(2, compared.expand(2, -1, -1))
        ratio = math.log(self.num_negatives / self.memory.shape[1])
        log_odds = scores - self.normalizers(scores.detach()).view(2, 1, 1) - ratio
        if self.training:
            self.update(anchors.detach(), index)
        losses = F.softplus(-log_odds[..., 0]) + F.softplus(log_odds[..., 1:]).sum(2)
        return losses.sum(0)

    def negatives(self, index: Int[Tensor, "B"]) -> Int[Tensor, "B K"]:
        """Samples of other classes than these samples have, each equally likely."""
        first, count = (values[index].unsqueeze(1) for values in (self.first, self.count))
        shape = len(index), self.num_negatives
        drawn = torch.randint(2**62, shape, device=index.device) % (len(self.first) - count)
        return self.by_class[drawn + count * (drawn >= first)]

    @torch.no_grad()
    def normalizers(self, scores: Float[Tensor, "2 B K+1"]) -> Float[Tensor, "2"]:
        """The logarithms of Z, which the first batch of all processes sets."""
        mean = scores.flatten(1).exp().mean(1)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(mean)
            mean = mean / torch.distributed.get_world_size()
        log_z = torch.where(self.log_z == UNKNOWN, (mean * self.memory.shape[1]).log(), self.log_z)
        if self.training:
            self.log_z.copy_(log_z)
        return log_z

    @torch.no_grad()
    def update(self, anchors: Float[Tensor, "2 B D"], index: Int[Tensor, "B"]) -> None:
        """Moves the slots of the samples of all processes towards their embeddings."""
        index, anchors = of_all_ranks(index), of_all_ranks(anchors, dim=1)
        slots = torch.lerp(anchors, self.memory[:, index], self.momentum)
        self.memory.index_copy_(1, index, unit_features(slots))


def of_all_ranks(values: Tensor, dim: int = 0) -> Tensor:
    """The values of all processes, one after the other, which must be equally many."""
    if not torch.distributed.is_initialized():
        return values
    parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts, dim=dim)
