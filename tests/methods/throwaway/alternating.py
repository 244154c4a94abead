"""A method with two optimizers, an inner attack and a teacher that learns too; of no use."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.base import Learner
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.modes import in_mode


class Alternating(Learner):
    """Each batch: a step of the policy, then one of students and teacher.

    Args:
        teacher: trained with the students.
        augmentation: of the strong view.
        attack_mode: of batch norm while an attacked image is searched for.
        attack_size: of an attack, in units of a [0, 1] image.
    """

    separate_optimizers = ("policy",)

    def __init__(
        self,
        *,
        teacher: nn.Module,
        augmentation: Callable[..., Tensor],
        attack_mode: str = "eval",
        attack_size: float = 0.02,
        **learner: Any,
    ) -> None:
        super().__init__(**learner)
        self.teacher = teacher
        self.augmentation = augmentation
        self.attack_mode = attack_mode
        self.attack_size = attack_size
        self.policy = nn.Linear(self.num_classes, 1)
        torch.nn.init.zeros_(self.policy.weight)
        torch.nn.init.zeros_(self.policy.bias)

    def own_modules(self) -> Mapping[str, nn.Module]:
        return {"teacher": self.teacher, "policy": self.policy}

    def unsupported(self) -> Mapping[str, str]:
        return {"cache": "its teacher learns"}

    def attacked(self, key: str, x: Tensor, y: Tensor) -> Tensor:
        """One step up the student's loss; leaves no gradient in its weights."""
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        with in_mode(self.students[key], self.attack_mode), torch.enable_grad():
            x = x.detach().requires_grad_()
            loss = label_cross_entropy(self.students[key](x).logits, y).sum()
            (slope,) = torch.autograd.grad(loss, x)
        return (x + self.attack_size * slope.sign()).clamp(0, 1).detach()

    def optimizer_steps(
        self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor
    ) -> None:
        first = next(iter(self.students))
        strong = self.augment(x, self.augmentation, "strong view")
        with torch.no_grad():
            logits = self.teacher(x).logits.float()
        chance = self.policy(logits).sigmoid().squeeze(1)
        reward = soft_target_kl(self(x)[first].logits.detach(), logits, 1.0)
        self.optimize(Losses({f"{first}/policy": -(chance * reward).mean()}), "policy")

        terms = {f"{first}/teacher_hard": label_cross_entropy(self.teacher(x).logits, y).mean()}
        for key in self.students:
            student = self.forward_student(key, self.attacked(key, x, y))
            other = self.students[key](strong)
            soft = chance.detach() * soft_target_kl(other.logits, logits, 2.0)
            terms[f"{key}/hard"] = label_cross_entropy(student.logits, y).mean()
            terms[f"{key}/soft"] = soft.mean()
        self.optimize(Losses(terms))
