"""Knowledge distillation, Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), and its relatives.

    L = hard_weight * CE(z, y) + soft_weight * mean_x[ soft_loss(z, z_t) ]
    soft_loss = T^2 KL(softmax(z_t / T) || softmax(z / T))

The field's tables use 0.1 and 0.9 or 1 and 1; here every weight has its own name and default 1.
What differs from this by a function is an option: other soft losses (DKD, DIST, MLKD, the other
direction of the KL: conf/soft_loss/), logits that are standardized first (arXiv 2403.01427), and a
temperature that learns against the student (CTKD, arXiv 2211.16231). A student with the teacher's
architecture makes born-again networks (arXiv 1805.04770) and continued training: conf/experiment/.

CTKD: T = temperature + temperature_range * sigmoid(tau), with the gradient of tau multiplied by
-(1 - cos(pi s)) / 2, while s rises from 0 to 1 over ``temperature_ramp`` of the run. The forms are
the released code's, with 1, 20 and 10 of 240 epochs (``learned_temperature.py``). Ours: s rises at
each step and not once an epoch, each student has a T of its own, and any soft loss can be used.
"""

from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import NotNegative, Share, Temperature
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.learned_temperature import LearnedTemperature
from kd_lightning.losses.logit_standardization import standardize
from kd_lightning.losses.mixed_targets import mixed_logits
from kd_lightning.losses.mlkd import mlkd_soft_loss
from kd_lightning.losses.soft_targets import (
    SoftLoss,
    function_of,
    kl_soft_loss,
    weighs_by_probability,
)
from kd_lightning.methods.checks import ALL_CLASSES, check_call, check_weights
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.ramp import cosine_ramp, ramp
from kd_lightning.methods.step import Cached, Losses


class KnowledgeDistillation(Distiller):
    """Each student imitates the teacher's softened predictions, by itself.

    Args:
        soft_loss: (student logits (B, C), teacher logits, labels, temperature) -> (B,).
        standardize_logits: student and teacher enter the soft loss with logits of mean 0 and
            standard deviation 1 over the classes of each sample, so that only their pattern counts.
        temperature: T, of both softmaxes; the smallest T where it is learned.
        temperature_range: T is learned between ``temperature`` and this much more; 0: T is fixed.
        temperature_ramp: share of the run over which the reversed gradient of T rises from 0.
        hard_weight: of the labels.
        soft_weight: of the teacher's soft targets; 0: the teacher is not used in training.
        mixed_targets: where samples are mixed in pairs (``data.mixing``): False: the teacher sees
            the mixed sample; True: its target is the mix of its two softened predictions for the
            clean samples, with the shares of the labels.
        soft_ramp: share of the run over which the soft term rises from 0.
    """

    takes_unlabeled = True

    def __init__(
        self,
        *,
        soft_loss: SoftLoss = kl_soft_loss,
        standardize_logits: bool = False,
        temperature: Temperature = 4.0,
        temperature_range: NotNegative = 0.0,
        temperature_ramp: Share = 10 / 240,
        hard_weight: NotNegative = 1.0,
        soft_weight: NotNegative = 1.0,
        mixed_targets: bool = False,
        soft_ramp: Share = 0.0,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        check_weights(hard_weight=hard_weight, soft_weight=soft_weight)
        logits, labels = torch.zeros(2, self.num_classes), torch.zeros(2, dtype=torch.long)
        check_call("soft_loss", soft_loss, logits, logits, labels, 1.0)
        check_options(
            self.num_classes, standardize_logits, mixed_targets, temperature_range, soft_weight
        )
        if mixed_targets and function_of(soft_loss) is mlkd_soft_loss:
            raise UserError(
                "two predictions are mixed at one temperature, and MLKD compares them at several: "
                "set method.mixed_targets=false, or another soft_loss@method.soft_loss"
            )
        self.soft_loss = soft_loss
        self.standardize_logits = standardize_logits
        self.temperature = temperature
        self.temperature_ramp = temperature_ramp
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.mixed_targets = mixed_targets
        self.soft_ramp = soft_ramp
        self.temperatures = nn.ModuleDict(
            {
                key: LearnedTemperature(temperature, temperature_range)
                for key in (self.students if temperature_range else ())
            }
        )

    def own_modules(self) -> dict[str, nn.Module]:
        return dict(self.temperatures.items())

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        teacher_logits = self.target_logits(x, cached) if self.soft_weight else None
        soft_weight = self.soft_weight * ramp(progress, self.soft_ramp)
        terms, metrics = {}, {}
        for key, student in self(x).items():
            hard = label_cross_entropy(student.logits[: len(y)], y)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            if teacher_logits is not None:
                labels = y if len(y) == len(x) else None
                temperature = self.temperature
                if self.temperatures:
                    strength = cosine_ramp(progress, self.temperature_ramp)
                    temperature = metrics[f"temperature/{key}"] = self.temperatures[key](strength)
                soft = self.distance(student.logits, teacher_logits, labels, temperature)
                terms[f"{key}/soft"] = soft_weight * soft.mean()
        return Losses(terms, metrics)

    def target_logits(self, x: Tensor, cached: Cached) -> Tensor:
        """The teacher's logits for a batch, or those of the mix of its clean answers, (B, C)."""
        if not self.mixed_targets:
            return self.teacher_logits(x, cached)
        clean = self.teacher_logits(cached.get("clean"), cached if "logits" in cached else None)
        return mixed_logits(clean, cached["partner"], cached["share"], self.temperature)

    @property
    def teacher_rows(self) -> int:
        return 1 if self.soft_weight else 0

    def cache_keys(self) -> dict[str, Any]:
        return {"logits": None} if self.soft_weight else {}

    def unsupported(self) -> dict[str, str]:
        reasons = {}
        if not weighs_by_probability(self.soft_loss):
            reasons["cache_top_k"] = ALL_CLASSES
        if self.temperatures:
            reasons["cache_top_k"] = "its learned temperature can need more than these logits"
        if self.standardize_logits:
            reasons["cache_top_k"] = (
                "standardized logits need the mean and the deviation over all classes"
            )
        if not self.soft_weight:
            reasons["unlabeled"] = "method.soft_weight=0 learns nothing from samples without labels"
        elif self.mixed_targets:
            reasons["unlabeled"] = "method.mixed_targets=true mixes the answers for labeled samples"
        elif needs_labels(self.soft_loss):
            reasons["unlabeled"] = "this soft loss needs the label of every sample"
        return reasons

    def distance(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
        temperature: float | Tensor,
    ) -> Tensor:
        """How far a student is from the teacher, (B,). Labels are None where some have none."""
        if self.standardize_logits:
            student_logits, teacher_logits = map(standardize, (student_logits, teacher_logits))
        return self.soft_loss(student_logits, teacher_logits, labels, temperature)


def check_options(
    num_classes: int,
    standardize_logits: bool,
    mixed_targets: bool,
    temperature_range: float,
    soft_weight: float,
) -> None:
    """Raises ``UserError`` for options that exclude each other, or have no effect."""
    if standardize_logits and num_classes < 3:
        raise UserError(
            f"standardized logits of {num_classes} classes are always -1 and 1, and teach "
            "nothing: set method.standardize_logits=false"
        )
    if mixed_targets and standardize_logits:
        raise UserError(
            "a mix of two predictions has no logits to standardize: set "
            "method.mixed_targets=false, or method.standardize_logits=false"
        )
    if mixed_targets and temperature_range:
        raise UserError(
            "two predictions are mixed at one temperature that is known: set "
            "method.mixed_targets=false, or method.temperature_range=0"
        )
    for name, value in (("mixed_targets", mixed_targets), ("temperature_range", temperature_range)):
        if value and not soft_weight:
            raise UserError(
                f"method.{name}={str(value).lower()} has no effect with method.soft_weight=0: "
                "remove one"
            )


def needs_labels(soft_loss: SoftLoss) -> bool:
    """Whether a soft loss cannot be computed without labels."""
    logits = torch.zeros(2, 3)
    try:
        soft_loss(logits, logits, None, 1.0)
    except Exception:  # a person's loss can raise anything
        return True
    return False
