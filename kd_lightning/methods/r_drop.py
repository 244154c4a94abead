"""R-Drop, Liang et al. 2021 (arXiv 2106.14448): two dropout passes of a net agree with each other.

    L = hard_weight * (CE(z1, y) + CE(z2, y)) / 2
        + consistency_weight * mean_x[ (KL(p1 || p2) + KL(p2 || p1)) / 2 ]

z1 and z2 are two passes of the same net with different dropout masks, and both get the gradient.
The paper's loss is the sum over the two passes, twice this one, so its alpha is twice
``consistency_weight``; as released, alpha is 5 for translation, 1 for language models and 0.6 for
images. The released code for images takes the sum of the divergence over a batch, beside the mean
of the cross-entropy; here both are means, as in its code for language. It is the control of
self-distillation: dropout passes that teach each other, without a teacher.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import NotNegative
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.soft_targets import soft_log_probs
from kd_lightning.methods.base import Learner
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.stochastic import active_dropouts


class RDrop(Learner):
    """Each student learns from labels, and agrees with itself under other dropout masks.

    Both passes are one batch of twice as many rows, so batch norm sees each sample twice.

    Args:
        hard_weight: of the labels, mean over the passes.
        consistency_weight: of the divergence between the passes, in nats; half the paper's alpha.
    """

    def __init__(
        self,
        *,
        hard_weight: NotNegative = 1.0,
        consistency_weight: NotNegative = 0.3,
        **learner: Any,
    ) -> None:
        super().__init__(**learner)
        check_weights(hard_weight=hard_weight, consistency_weight=consistency_weight)
        for key, student in self.students.items():
            if not active_dropouts(student):
                raise UserError(
                    f"student {key} has no dropout, so its two passes would be equal: set "
                    f"method.students.{key}.dropout or method.students.{key}.block_dropout > 0"
                )
        self.hard_weight = hard_weight
        self.consistency_weight = consistency_weight

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        terms = {}
        for key in self.students:
            logits = self.forward_student(key, torch.cat([x, x])).logits
            hard = label_cross_entropy(logits, torch.cat([y, y]))
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            consistency = symmetric_kl(*logits.chunk(2))
            terms[f"{key}/consistency"] = self.consistency_weight * consistency.mean()
        return Losses(terms)


def symmetric_kl(a: Float[Tensor, "B C"], b: Float[Tensor, "B C"]) -> Float[Tensor, "B"]:
    """``(KL(p_a || p_b) + KL(p_b || p_a)) / 2`` of two predictions, in nats, from their logits.

    Zero when they are equal. The gradient goes to both.
    """
    log_a, log_b = soft_log_probs(a, 1.0), soft_log_probs(b, 1.0)
    return ((log_a.exp() - log_b.exp()) * (log_a - log_b)).sum(dim=1) / 2
