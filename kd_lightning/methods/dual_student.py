"""Uncertainty-aware dual-student distillation (UA-DS), arXiv 2511.18826.

One frozen teacher, two or more different students on the same batch. For student i:

    w   = 1 - H(softmax(z_t / T_w)) / log C
    L_i = hard_weight * CE(z_i, y)
        + soft_weight * mean_x[ w * T^2 KL(p_t^T || p_i^T) ]
        + peer_weight * mean_x[ T_p^2 KL(sg[p_j^Tp] || p_i^Tp) ]

and the sum over students is minimised. With more than two, the peer target is the mean of the
others' probabilities. The paper gives no coefficients, temperatures or ramp: each is an argument.
T_w is its own option because at T_w = 4 a confident teacher of 100 classes gets a mean w of 0.04,
and the soft term silently vanishes.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MaxMetric, MeanMetric, MetricCollection, MinMetric

from kd_lightning.errors import UserError, unknown
from kd_lightning.losses.labels import label_cross_entropy
from kd_lightning.losses.soft_targets import mean_log_probs, soft_target_kl, soft_target_kl_to
from kd_lightning.methods.base import Distiller, check_positive, check_weights
from kd_lightning.models.outputs import ModelOutput
from kd_lightning.models.stochastic import require_dropout, sample_features
from kd_lightning.uncertainty.confidence import entropy_confidence, hard_gate, soft_gate

GATES = {"soft": soft_gate, "hard": hard_gate}


class DualStudent(Distiller):
    """Students that learn from labels, a confident teacher and each other.

    Args:
        confidence: (teacher logits (B, C), labels, samples) -> (B,) in [0, 1], 1 when sure.
        confidence_passes: K dropout passes of the teacher, which ``confidence`` gets as its
            samples (K, B, C); 0: none. Mutual information needs them.
        confidence_temperature: T_w, divides the logits that ``confidence`` sees.
        confidence_threshold: samples below it lose the teacher; 0 keeps all.
        confidence_gate: "soft": samples at or above the threshold keep their confidence as
            weight; "hard": their weight is 1.
        normalize_confidence: divide the soft term by the mean weight of the batch, so that weights
            only shift emphasis between samples and do not scale the term down.
        temperature: T, of teacher and students in the soft term.
        peer_temperature: T_p, of students in the peer term.
        hard_weight, soft_weight, peer_weight: of labels, teacher and peers.
        peer_ramp: share of the run over which the peer term rises from 0; random students teach
            noise.
        peer_confidence: weigh the peer term by the peer's own confidence.
    """

    def __init__(
        self,
        *,
        confidence: Callable[..., Tensor] = entropy_confidence,
        confidence_passes: int = 0,
        confidence_temperature: float = 1.0,
        confidence_threshold: float = 0.0,
        confidence_gate: str = "soft",
        normalize_confidence: bool = False,
        temperature: float = 4.0,
        peer_temperature: float = 4.0,
        hard_weight: float = 1.0,
        soft_weight: float = 1.0,
        peer_weight: float = 0.5,
        peer_ramp: float = 0.1,
        peer_confidence: bool = False,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        if len(self.students) < 2:
            raise UserError(
                "dual_student needs two students or more, got 1: add one with "
                "model@method.students.b=…, or use method=kd"
            )
        if self.num_classes < 2:
            raise UserError(f"a confidence needs two classes or more, got {self.num_classes}")
        check_positive(
            temperature=temperature,
            peer_temperature=peer_temperature,
            confidence_temperature=confidence_temperature,
        )
        check_weights(hard_weight=hard_weight, soft_weight=soft_weight, peer_weight=peer_weight)
        for name, value in (
            ("confidence_threshold", confidence_threshold),
            ("peer_ramp", peer_ramp),
        ):
            if not 0 <= value <= 1:
                raise UserError(f"{name} must be in [0, 1], got {value} (method.{name}=…)")
        if confidence_gate not in GATES:
            raise unknown("gate", confidence_gate, GATES, "method.confidence_gate")
        if confidence_passes:
            check_positive(confidence_passes=confidence_passes)
            require_dropout(self.teacher)
        else:
            check_needs_no_samples(confidence, self.num_classes)
        if peer_confidence:
            check_needs_no_samples(confidence, self.num_classes)
        self.confidence = confidence
        self.confidence_passes = confidence_passes
        self.confidence_temperature = confidence_temperature
        self.confidence_threshold = confidence_threshold
        self.gate = GATES[confidence_gate]
        self.normalize_confidence = normalize_confidence
        self.temperature = temperature
        self.peer_temperature = peer_temperature
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.peer_weight = peer_weight
        self.peer_ramp = peer_ramp
        self.peer_confidence = peer_confidence
        self.seen_weights = MetricCollection(
            {
                "mean": MeanMetric(nan_strategy="disable"),
                "min": MinMetric(nan_strategy="disable"),
                "max": MaxMetric(nan_strategy="disable"),
            }
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        teacher = self.teacher_output(x)
        students = self(x)
        weight = self.sample_weight(teacher.logits, y, self.teacher_samples(x))
        self.seen_weights.update(weight)
        terms = {}
        for key, student in students.items():
            hard = label_cross_entropy(student.logits, y)
            soft = weight * soft_target_kl(student.logits, teacher.logits, self.temperature)
            if self.normalize_confidence:
                soft = soft / weight.mean().clamp_min(1e-8)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            terms[f"{key}/soft"] = self.soft_weight * soft.mean()
            if self.peer_weight:
                peer = self.peer_weight * self.ramp() * self.peer_loss(key, students, y).mean()
                terms[f"{key}/peer"] = peer
        return self.log_losses(terms)

    def teacher_samples(self, x: Tensor) -> Tensor | None:
        """Logits of K dropout passes of the teacher, (K, B, C); None if nothing asks for them."""
        if not self.confidence_passes:
            return None
        self.seed_step_stream("teacher_masks")
        with torch.no_grad():
            return self.teacher.head(sample_features(self.teacher, x, self.confidence_passes))

    def sample_weight(
        self, teacher_logits: Tensor, labels: Tensor, samples: Tensor | None = None
    ) -> Tensor:
        """w of every sample, (B,): the teacher's confidence, gated."""
        logits = teacher_logits.float() / self.confidence_temperature
        if samples is not None:
            samples = samples.float() / self.confidence_temperature
        return self.gate(self.confidence(logits, labels, samples), self.confidence_threshold)

    def peer_loss(self, key: str, students: dict[str, ModelOutput], labels: Tensor) -> Tensor:
        """Distance of a student to its peers' mean prediction, which is a constant to it, (B,)."""
        peers = [output.logits.detach() for other, output in students.items() if other != key]
        target = mean_log_probs(peers, self.peer_temperature)
        loss = soft_target_kl_to(students[key].logits, target, self.peer_temperature)
        if self.peer_confidence:
            # log-probabilities are logits of the same distribution
            peer_logits = mean_log_probs(peers, self.confidence_temperature)
            loss = self.confidence(peer_logits, labels, None) * loss
        return loss

    def ramp(self) -> float:
        """How much of the peer term counts by now, in [0, 1]."""
        return 1.0 if self.peer_ramp == 0 else min(1.0, self.progress / self.peer_ramp)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        seen = self.seen_weights.compute()
        self.seen_weights.reset()
        for name, value in seen.items():
            self.log(f"train/weight/{name}", value)
        if self.soft_weight and seen["mean"] < 0.05:
            warnings.warn(
                f"the mean weight of the teacher's soft targets was {seen['mean']:.3f} this epoch, "
                "so the teacher hardly counts: lower method.confidence_threshold or "
                "method.confidence_temperature, or set method.normalize_confidence=true",
                stacklevel=2,
            )


def check_needs_no_samples(confidence: Callable[..., Tensor], num_classes: int) -> None:
    """Raises ``UserError`` for a confidence that cannot do with one deterministic prediction."""
    try:
        confidence(torch.zeros(1, num_classes), torch.zeros(1, dtype=torch.long), None)
    except ValueError as error:
        raise UserError(
            f"this confidence is taken from dropout passes ({error}): set "
            "method.confidence_passes=10 and method.teacher.dropout, and leave peer_confidence off"
        ) from error
