"""Stochastic self-distillation with student-guided weighting (SSD), arXiv 2504.14307.

The student has the teacher's architecture and starts from its weights. For each input, K teacher
passes with dropout give K feature vectors f_k, and the student's feature f_s chooses among them:

    a = softmax_k( <f_s, f_k> / h ), set to 0 below its e-th percentile over k, renormalised
    L = hard_weight * CE(z_s, y) + feature_weight * (1/D) || f_s - sum_k a_k f_k ||^2

Student: the classifier's input before its own dropout; teacher: after it. Tested as one plain
deterministic pass. ``detach_weights`` keeps the gradient out of a (the released code lets it in).

Its controls are options: ``guidance`` (mean or nearest pass; weights of another input),
``num_passes=1`` (a random pass), ``stochastic=false`` (the teacher's deterministic features),
``feature_weight=0`` (the same training from the teacher's weights, without a teacher).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import Count, NotNegative
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.feature_distance import feature_mse
from kd_lightning.losses.guidance import (
    Guidance,
    attention_guidance,
    dot_similarity,
    guided_target,
    num_kept_samples,
    similarity_to_target,
    weight_entropy,
)
from kd_lightning.methods.checks import check_call, check_weights
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.stochastic import (
    drop_features,
    has_deterministic_features,
    require_dropout,
    sample_features,
)

PAPER = partial(
    attention_guidance,
    bandwidth=5.0,
    percentile=90.0,
    top_k=None,
    renormalize=True,
    similarity=dot_similarity,
    permuted=False,
)


class StochasticSelfDistillation(Distiller):
    """One net; the student chooses among its teacher's dropout passes.

    Args:
        num_passes: K.
        guidance: (f_s (B, D), f_k (K, B, D)) -> ``Guidance``: who chooses the target, and how.
        stochastic: False: the teacher's passes are deterministic and so all equal; one is made.
        detach_weights: no gradient through the weights.
        start_from_teacher: False: random weights, which the paper found to end below the baseline.
        hard_weight, feature_weight: of the labels and of the teacher's features.
        max_rows: most rows in one teacher pass, where dropout stands in the blocks; None: as many
            as the device is fast with.
    """

    def __init__(
        self,
        *,
        num_passes: Count = 30,
        guidance: Callable[[Tensor, Tensor], Guidance] = PAPER,
        stochastic: bool = True,
        detach_weights: bool = True,
        start_from_teacher: bool = True,
        hard_weight: NotNegative = 1.0,
        feature_weight: NotNegative = 1.0,
        max_rows: Count | None = None,
        **distiller: Any,
    ) -> None:
        super().__init__(start_from_teacher=start_from_teacher, **distiller)
        if len(self.students) != 1:
            raise UserError(
                f"stochastic_self_distillation has one student, got {len(self.students)}"
            )
        check_weights(hard_weight=hard_weight, feature_weight=feature_weight)
        check_call("guidance", guidance, torch.zeros(1, 2), torch.zeros(2, 1, 2))
        if stochastic and feature_weight:
            require_dropout(self.teacher)
        (self.key,) = self.students
        self.num_passes = num_passes
        self.guidance = guidance
        self.stochastic = stochastic
        self.detach_weights = detach_weights
        self.hard_weight = hard_weight
        self.feature_weight = feature_weight
        self.max_rows = max_rows
        self._passes_differ = False

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        if not self.feature_weight:
            student = self.forward_student(self.key, x)
            hard = label_cross_entropy(student.logits, y)
            return Losses({f"{self.key}/hard": self.hard_weight * hard.mean()})
        samples = self.teacher_samples(x, cached)
        student = self.forward_student(self.key, x)
        guide = student.features.detach() if self.detach_weights else student.features
        weights, attention = self.guidance(guide, samples)
        hard = label_cross_entropy(student.logits, y)
        feature = feature_mse(student.features, guided_target(weights, samples))
        nearness = similarity_to_target(student.features, samples, weights)
        return Losses(
            {
                f"{self.key}/hard": self.hard_weight * hard.mean(),
                f"{self.key}/feature": self.feature_weight * feature.mean(),
            },
            metrics={
                "guidance/passes_kept": num_kept_samples(weights).mean(),
                "guidance/attention_entropy": weight_entropy(attention).mean(),
                "guidance/weight_entropy": weight_entropy(weights).mean(),
                "guidance/similarity": nearness.mean(),
            },
        )

    def prepare(self, x: Tensor, cached: Cached) -> None:
        super().prepare(x, cached)
        if self.has_fast_step and self.stochastic and self.feature_weight:
            self._check_passes_differ(x, cached)  # it waits for the device: not inside a graph

    @property
    def teacher_rows(self) -> int:
        if not self.feature_weight:
            return 0
        once = not self.stochastic or has_deterministic_features(self.teacher)
        return 1 if once else self.num_passes

    def unsupported(self) -> dict[str, str]:
        if (
            not self.feature_weight
            or not self.stochastic
            or has_deterministic_features(self.teacher)
        ):
            return {}
        return {"cache": "the teacher has dropout in its blocks (method.teacher.block_dropout)"}

    def cache_keys(self) -> dict[str, Any]:
        return {"features": None} if self.feature_weight else {}

    def cache_values(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"features": self.teacher_output(x).features}

    def teacher_samples(self, x: Tensor, cached: Cached = None) -> Tensor:
        """K random features of each input, (K, B, D); the masks have their own random stream."""
        if not self.stochastic:
            features = self.teacher_output(x).features if cached is None else cached["features"]
            return features.float().unsqueeze(0)
        self.seed_step_stream("teacher_masks")
        samples = self._passes(x, self.num_passes, cached)
        if not torch.compiler.is_compiling():
            self._check_passes_differ(x, cached, samples)
        return samples

    def _check_passes_differ(
        self, x: Tensor, cached: Cached, samples: Tensor | None = None
    ) -> None:
        """Checks once that two passes of the teacher differ, those of ``samples`` if given."""
        if self._passes_differ:
            return
        if samples is None or len(samples) < 2:
            samples = self._passes(x, 2, cached)
        if torch.equal(samples[0], samples[1]):
            raise UserError(
                "two stochastic passes of the teacher are equal, so the student cannot choose: "
                "raise method.teacher.dropout or method.teacher.block_dropout"
            )
        self._passes_differ = True

    def _passes(self, x: Tensor, num_passes: int, cached: Cached) -> Tensor:
        if cached is not None:
            return drop_features(self.teacher, cached["features"].float(), num_passes)
        return sample_features(self.teacher_for(x), x, num_passes, self.max_rows)
