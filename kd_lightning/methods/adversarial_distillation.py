"""Adversarial knowledge distillation (AKD), Maroto, Ortiz-Jimenez and Frossard 2022
(arXiv 2203.07159): adversarial training on a mixture of the labels and a robust teacher's answers.

    L  = hard_weight * CE(z(x'), y) + soft_weight * KL( softmax(z_t(u)) || softmax(z(x')) )
    x' = argmax_{|x' - x| <= epsilon} CE(z(x'), y)    (L-inf)       u = x', or x

With weights alpha and 1 - alpha this is cross-entropy with the mixture q = alpha y + (1 - alpha)
softmax(z_t(u)), up to the teacher's entropy, which has no gradient. There is no temperature.

After the paper's description, since its text gives no coefficients that we could read and there is
no released code: alpha = 0.5, where the teacher looks (u = x'), what the attack raises (the loss of
the labels) and the mode of batch norm during it are ours, as the field has them. The teacher must
be robust: ``method@teacher.method=adversarial_training``; the paper also recommends one stopped
early (the default here), one trained with a weaker attack (``teacher.method.epsilon``) and several
(``teacher.source=[run,run]``).
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from kd_lightning.base.errors import unknown
from kd_lightning.base.ranges import NotNegative
from kd_lightning.losses.attacks import as_floats
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.adversarial_learner import AdversarialLearner
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.step import Cached, Losses

INPUTS = ("adversarial", "clean")
TARGETS = ("labels", "mixture")


class AdversarialDistillation(AdversarialLearner, Distiller):
    """Each student learns labels and the teacher's answers on samples that attack it.

    Args:
        hard_weight: of the labels: alpha.
        soft_weight: of the teacher's answers: 1 - alpha; 0: adversarial training, without a
            teacher.
        teacher_input: what the teacher answers: "adversarial": the samples that attack the student.
            "clean": the samples themselves.
        attack_target: what the attack raises: "labels": the loss of the labels. "mixture": L
            itself, with the teacher's answers to the clean samples.
    """

    teacher_method = "adversarial_training"

    def __init__(
        self,
        *,
        hard_weight: NotNegative = 0.5,
        soft_weight: NotNegative = 0.5,
        teacher_input: str = "adversarial",
        attack_target: str = "labels",
        **learner: Any,
    ) -> None:
        super().__init__(**learner)
        check_weights(hard_weight=hard_weight, soft_weight=soft_weight)
        if teacher_input not in INPUTS:
            raise unknown("input", str(teacher_input), INPUTS, "method.teacher_input")
        if attack_target not in TARGETS:
            raise unknown("target", str(attack_target), TARGETS, "method.attack_target")
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.teacher_input = teacher_input
        self.attack_target = attack_target

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        x = as_floats(x)
        clean = self.teacher_logits(x, cached) if self.needs_clean_answers else None
        objective = self.objective(y, clean)
        terms = {}
        for key in self.students:
            attacked = self.attacked(key, x, objective, mode=self.attack_mode)
            student = self.forward_student(key, attacked)
            hard = label_cross_entropy(student.logits, y)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            if self.soft_weight:
                is_clean = self.teacher_input == "clean"
                teacher = clean if is_clean else self.teacher_output(attacked).logits
                soft = soft_target_kl(student.logits, teacher, self.temperature)
                terms[f"{key}/soft"] = self.soft_weight * soft.mean()
        return Losses(terms)

    def objective(self, y: Tensor, teacher_logits: Tensor | None) -> Callable[[Tensor], Tensor]:
        """A student's logits (B, C) -> what the attack raises, (B,)."""

        def objective(logits: Tensor) -> Tensor:
            hard = label_cross_entropy(logits, y)
            if not self.attacks_mixture:
                return hard
            soft = soft_target_kl(logits, teacher_logits, self.temperature)
            return self.hard_weight * hard + self.soft_weight * soft

        return objective

    @property
    def attacks_mixture(self) -> bool:
        return self.attack_target == "mixture" and self.soft_weight > 0

    @property
    def needs_clean_answers(self) -> bool:
        """Whether the teacher sees the samples themselves."""
        return self.attacks_mixture or (self.teacher_input == "clean" and self.soft_weight > 0)

    @property
    def teacher_rows(self) -> int:
        if not self.soft_weight:
            return 0
        attacked = len(self.students) if self.teacher_input == "adversarial" else 0
        return attacked + self.needs_clean_answers

    def cache_keys(self) -> dict[str, Any] | None:
        if not self.soft_weight:
            return {}
        return {"logits": None} if self.teacher_input == "clean" else None

    def unsupported(self) -> dict[str, str]:
        reasons = super().unsupported()
        if self.cache_keys() is None:
            reasons["cache"] = (
                "the teacher answers samples that are new at every step, unless "
                "method.teacher_input=clean"
            )
        return reasons
