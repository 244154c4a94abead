"""Deep mutual learning (DML), Zhang et al. 2018 (arXiv 1706.00384).

Two students or more and no teacher; each learns from the labels and from its peers. For student i
of N:

    L_i = hard_weight * CE(z_i, y) + peer_weight * mean_{j != i} mean_x[ KL(sg[p_j] || p_i) ]

and the sum over students is minimised. The paper's predictions are not softened: T = 1.

With more than two students the paper takes the mean of the peers' divergences, and so does this;
``dual_student`` takes the divergence from the peers' mean prediction. For detached peers the two
have the same gradient: they differ by how far the peers are from each other (their Jensen-Shannon
divergence), which is a constant to the student. In the paper each student is updated in turn, and
the next one sees its new prediction; here all are updated at once, from one prediction each.
"""

from typing import Any

import torch
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import NotNegative, Share, Temperature
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.base import Learner
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.ramp import ramp
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.outputs import ModelOutput


class MutualLearning(Learner):
    """Students that learn from labels and each other.

    Args:
        hard_weight: of the labels.
        peer_weight: of the peers' predictions.
        peer_temperature: T, of a student and its peers; the peer term is multiplied by T^2.
        peer_ramp: share of the run over which the peer term rises from 0.
    """

    def __init__(
        self,
        *,
        hard_weight: NotNegative = 1.0,
        peer_weight: NotNegative = 1.0,
        peer_temperature: Temperature = 1.0,
        peer_ramp: Share = 0.0,
        **learner: Any,
    ) -> None:
        super().__init__(**learner)
        if len(self.students) < 2:
            raise UserError(
                "mutual_learning needs two students or more, got 1: add one with "
                "model@method.students.b=…, or use method=supervised"
            )
        check_weights(hard_weight=hard_weight, peer_weight=peer_weight)
        self.hard_weight = hard_weight
        self.peer_weight = peer_weight
        self.peer_temperature = peer_temperature
        self.peer_ramp = peer_ramp

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        students = self(x)
        peer_weight = self.peer_weight * ramp(progress, self.peer_ramp)
        terms = {}
        for key, student in students.items():
            hard = label_cross_entropy(student.logits, y)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            if self.peer_weight:
                terms[f"{key}/peer"] = peer_weight * self.peer_loss(key, students).mean()
        return Losses(terms)

    def peer_loss(self, key: str, students: dict[str, ModelOutput]) -> Tensor:
        """Mean distance of a student to its peers, which are constants to it, (B,)."""
        own = students[key].logits
        peers = [output.logits for other, output in students.items() if other != key]
        distances = [soft_target_kl(own, peer, self.peer_temperature) for peer in peers]
        return torch.stack(distances).mean(dim=0)
