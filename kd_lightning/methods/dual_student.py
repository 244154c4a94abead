"""Uncertainty-aware dual-student distillation (UA-DS), arXiv 2511.18826.

One frozen teacher, two or more different students on the same batch. For student i:

    w   = 1 - H(softmax(z_t / T_w)) / log C
    L_i = hard_weight * CE(z_i, y)
        + soft_weight * mean_x[ w * soft_loss ],  soft_loss = T^2 KL(p_t^T || p_i^T)
        + peer_weight * mean_x[ T_p^2 KL(sg[p_j^Tp] || p_i^Tp) ]

and the sum over students is minimised. With more than two, the peer target is the mean of the
others' probabilities. The paper gives no coefficients, temperatures or ramp: each is an argument.
T_w is its own option because at T_w = 4 a confident teacher of 100 classes gets a mean w of 0.04,
and the soft term silently vanishes. Further options are ours: another soft loss or direction of the
KL, and labels that are weighted by 1 - w.
"""

import warnings
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, Literal

import torch
from torch import Tensor

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import CountOrZero, NotNegative, Share, Temperature
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.soft_targets import (
    SoftLoss,
    kl_soft_loss,
    mean_log_probs,
    soft_target_kl_to,
    weighs_by_probability,
)
from kd_lightning.methods.checks import ALL_CLASSES, check_call, check_weights
from kd_lightning.methods.confidence_log import Bins, ConfidenceLog, Counts, counted
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.ramp import ramp
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.outputs import ModelOutput
from kd_lightning.models.stochastic import (
    has_deterministic_features,
    require_dropout,
    sample_logits,
)
from kd_lightning.uncertainty.confidence import entropy_confidence, hard_gate, soft_gate

GATES = {"soft": soft_gate, "hard": hard_gate}
CALIBRATED = "calibrated"  # a confidence_temperature that is fitted on val before the training
WEAK = 0.05  # mean weight below which the teacher has hardly any effect


class DualStudent(Distiller):
    """Students that learn from labels, a confident teacher and each other.

    Args:
        confidence: (teacher logits (B, C), labels, samples) -> (B,) in [0, 1], 1 when sure.
        confidence_passes: K dropout passes of the teacher, which ``confidence`` gets as its
            samples (K, B, C); 0: none. Mutual information needs them.
        confidence_temperature: T_w, divides the logits that ``confidence`` sees. "calibrated": a
            run sets it to the temperature at which the teacher's NLL on val is least.
        confidence_threshold: samples below it lose the teacher; 0 keeps all.
        confidence_gate: "soft": samples at or above the threshold keep their confidence as
            weight; "hard": their weight is 1.
        normalize_confidence: divide the weights by their mean over the batch, so that they only
            shift emphasis between samples and do not scale the soft term down.
        labels_where_unsure: weigh the labels of a sample by 1 - w, where w is the weight of its
            soft term before ``normalize_confidence``: together (1 - w) CE + w KL.
        soft_loss: (student logits (B, C), teacher logits, labels, temperature) -> (B,).
        temperature: T, of teacher and students in the soft term.
        peer_temperature: T_p, of students in the peer term.
        hard_weight, soft_weight, peer_weight: of labels, teacher and peers.
        peer_ramp: share of the run over which the peer term rises from 0; random students teach
            noise.
        peer_confidence: weigh the peer term by the confidence, not gated, of the prediction that
            is its target.

    Attributes:
        confidence_bins: of the last epoch; see ``ConfidenceSummary``.
    """

    def __init__(
        self,
        *,
        confidence: Callable[..., Tensor] = entropy_confidence,
        confidence_passes: CountOrZero = 0,
        confidence_temperature: Temperature | Literal["calibrated"] = 1.0,
        confidence_threshold: Share = 0.0,
        confidence_gate: str = "soft",
        normalize_confidence: bool = False,
        labels_where_unsure: bool = False,
        soft_loss: SoftLoss = kl_soft_loss,
        temperature: Temperature = 4.0,
        peer_temperature: Temperature = 4.0,
        hard_weight: NotNegative = 1.0,
        soft_weight: NotNegative = 1.0,
        peer_weight: NotNegative = 0.5,
        peer_ramp: Share = 0.1,
        peer_confidence: bool = False,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        if len(self.students) < 2:
            raise UserError(
                "dual_student needs two students or more, got 1: add one with "
                "model@method.students.b=…, or use method=kd"
            )
        check_confidence_temperature(confidence_temperature)
        check_weights(hard_weight=hard_weight, soft_weight=soft_weight, peer_weight=peer_weight)
        if confidence_gate not in GATES:
            raise unknown("gate", confidence_gate, GATES, "method.confidence_gate")
        if confidence_passes:
            require_dropout(self.teacher)
            check_takes_samples(confidence, confidence_passes, self.num_classes)
        if peer_confidence or not confidence_passes:
            check_needs_no_samples(confidence, self.num_classes)
        logits, labels = torch.zeros(2, self.num_classes), torch.zeros(2, dtype=torch.long)
        check_call("soft_loss", soft_loss, logits, logits, labels, 1.0)
        self.confidence = confidence
        self.confidence_passes = confidence_passes
        self.confidence_temperature: Any = confidence_temperature
        self.confidence_threshold = confidence_threshold
        self.gate = GATES[confidence_gate]
        self.normalize_confidence = normalize_confidence
        self.labels_where_unsure = labels_where_unsure
        self.soft_loss = soft_loss
        self.temperature = temperature
        self.peer_temperature = peer_temperature
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.peer_weight = peer_weight
        self.peer_ramp = peer_ramp
        self.peer_confidence = peer_confidence
        self.confidence_log = ConfidenceLog(self.students)
        self.confidence_bins: Bins = []
        self._has_warned = False

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        teacher_logits = self.teacher_logits(x, cached)
        students = self(x)
        confidence = self.confidence_in(x, y, teacher_logits, cached)
        weight = self.gate(confidence, self.confidence_threshold)
        logits = {"teacher": teacher_logits, **{k: s.logits for k, s in students.items()}}
        counts = counted(confidence, weight, logits, y, threshold=self.confidence_threshold)
        of_labels = 1 - weight if self.labels_where_unsure else 1
        if self.normalize_confidence:
            weight = weight / mean_over_ranks(weight).clamp_min(1e-8)
        peer_weight = self.peer_weight * ramp(progress, self.peer_ramp)
        terms = {}
        for key, student in students.items():
            hard = of_labels * label_cross_entropy(student.logits, y)
            soft = weight * self.soft_loss(student.logits, teacher_logits, y, self.temperature)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            terms[f"{key}/soft"] = self.soft_weight * soft.mean()
            if self.peer_weight:
                terms[f"{key}/peer"] = peer_weight * self.peer_loss(key, students, y).mean()
        return Losses(terms, statistics=counts)

    def update_statistics(self, statistics: Counts) -> None:
        self.confidence_log.update(statistics)

    @property
    def teacher_rows(self) -> int:
        if not self.confidence_passes:
            return 1
        return 1 + (1 if has_deterministic_features(self.teacher) else self.confidence_passes)

    def confidence_in(self, x: Tensor, y: Tensor, logits: Tensor, cached: Cached = None) -> Tensor:
        """The teacher's confidence before the gate, (B,), from the cache if there is one."""
        if cached is not None:
            return cached["confidence"]
        return self.teacher_confidence(logits, y, self.teacher_samples(x))

    def unsupported(self) -> dict[str, str]:
        reasons = {}
        if self.confidence_passes:
            reasons["cache"] = (
                "method.confidence_passes draws new dropout passes of the teacher at every step"
            )
        if not weighs_by_probability(self.soft_loss):
            reasons["cache_top_k"] = ALL_CLASSES
        return reasons

    def cache_keys(self) -> dict[str, Any]:
        settings = [as_plain_values(self.confidence), self.confidence_temperature]
        return {"logits": None, "confidence": settings}

    def cache_values(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        logits = self.teacher_output(x).logits
        return {"logits": logits, "confidence": self.confidence_in(x, y, logits)}

    def teacher_samples(self, x: Tensor) -> Tensor | None:
        """Logits of K dropout passes of the teacher, (K, B, C); None if none are needed."""
        if not self.confidence_passes:
            return None
        self.seed_step_stream("teacher_masks")
        with torch.no_grad():
            return sample_logits(self.teacher_for(x), x, self.confidence_passes)

    def teacher_confidence(
        self, teacher_logits: Tensor, labels: Tensor, samples: Tensor | None = None
    ) -> Tensor:
        """w of every sample before the gate, (B,)."""
        logits = teacher_logits.float() / self.confidence_temperature
        if samples is not None:
            samples = samples.float() / self.confidence_temperature
        return self.confidence(logits, labels, samples)

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

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        scalars, self.confidence_bins = self.confidence_log.compute()
        self.confidence_log.reset()
        self.log_dict({f"train/{name}": value for name, value in scalars.items()}, sync_dist=True)
        if self.soft_weight and self.global_rank == 0 and not self._has_warned:
            self._warn_of_a_weak_teacher(scalars["weight/mean"], scalars["confidence/share_kept"])

    def epoch_tables(self) -> dict[str, Bins]:
        return {"confidence": self.confidence_bins}

    def _warn_of_a_weak_teacher(self, mean_weight: Tensor, share_kept: Tensor) -> None:
        if mean_weight >= WEAK or (self.normalize_confidence and mean_weight > 0):
            return
        self._has_warned = True
        remedies = [
            "lower method.confidence_threshold",
            "choose another method.confidence_temperature",
            "set method.normalize_confidence=true",
        ]
        if self.normalize_confidence:
            remedies.pop()
        warnings.warn(
            f"the mean weight of the teacher's soft targets was {mean_weight:.3f} in epoch "
            f"{self.current_epoch}, where {share_kept:.0%} of the samples were at or above the "
            f"threshold, so the teacher has hardly any effect: {', or '.join(remedies)}",
            stacklevel=3,
        )


def check_confidence_temperature(value: float | str) -> None:
    """Raises ``UserError`` for a word that is not ``CALIBRATED``."""
    if isinstance(value, str) and value != CALIBRATED:
        raise UserError(
            f"method.confidence_temperature must be a number > 0 or {CALIBRATED}, got {value}"
        )


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of a batch that is dealt out over the ranks in equal parts."""
    mean = values.detach().mean()
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean = mean / torch.distributed.get_world_size()
    return mean


def check_needs_no_samples(confidence: Callable[..., Tensor], num_classes: int) -> None:
    """Raises ``UserError`` for a confidence that needs more than one deterministic prediction."""
    example = torch.zeros(1, num_classes), torch.zeros(1, dtype=torch.long), None
    advice = (
        "set method.confidence_passes=10 and method.teacher.dropout, with "
        "method.peer_confidence=false"
    )
    check_call("confidence", confidence, *example, advice=advice)


def check_takes_samples(confidence: Callable[..., Tensor], passes: int, num_classes: int) -> None:
    """Raises ``UserError`` for a confidence that dropout passes do not change."""
    logits, labels = torch.zeros(1, num_classes), torch.zeros(1, dtype=torch.long)
    sure = 20 * torch.eye(num_classes)[:2].unsqueeze(1)  # (2, 1, C): of one class, and of another
    agreeing, disagreeing = (confidence(logits, labels, k) for k in (sure[[0, 0]], sure))
    if torch.equal(agreeing, disagreeing):
        raise UserError(
            f"method.confidence_passes={passes} has no effect on this confidence, and costs "
            f"{passes} passes of the teacher: set it to 0, or take "
            "confidence@method.confidence=mutual_information"
        )


def as_plain_values(value: Any) -> Any:
    """A function and its settings as plain values that are the same in every process."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, partial):
        settings = {key: as_plain_values(one) for key, one in value.keywords.items()}
        return [as_plain_values(value.func), list(map(as_plain_values, value.args)), settings]
    if isinstance(value, FunctionType):
        return [value.__module__, value.__qualname__]
    raise UserError(
        f"a cache can only store a confidence that is a function with plain values, got "
        f"{type(value).__name__}: change confidence@method.confidence, or set teacher.cache=null"
    )
