"""Knowledge distillation, Hinton, Vinyals and Dean 2015 (arXiv 1503.02531).

    L = hard_weight * CE(z, y) + soft_weight * T^2 KL(softmax(z_t / T) || softmax(z / T))

The field's tables use 0.1 and 0.9 or 1 and 1; here every weight has its own name and default 1.
"""

from typing import Any

from torch import Tensor

from kd_lightning.losses.labels import label_cross_entropy
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.base import Distiller, check_positive, check_weights


class KnowledgeDistillation(Distiller):
    """Each student imitates the teacher's softened predictions, by itself.

    Args:
        temperature: T, of both softmaxes.
        hard_weight: of the labels.
        soft_weight: of the teacher's soft targets.
    """

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        hard_weight: float = 1.0,
        soft_weight: float = 1.0,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        check_positive(temperature=temperature)
        check_weights(hard_weight=hard_weight, soft_weight=soft_weight)
        self.temperature = temperature
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        teacher = self.teacher_output(x)
        terms = {}
        for key, student in self(x).items():
            hard = label_cross_entropy(student.logits, y)
            soft = soft_target_kl(student.logits, teacher.logits, self.temperature)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            terms[f"{key}/soft"] = self.soft_weight * soft.mean()
        return self.log_losses(terms)
