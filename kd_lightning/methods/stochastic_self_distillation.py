"""Stochastic self-distillation with student-guided weighting (SSD), arXiv 2504.14307.

The student is the teacher's twin and starts from its weights. Per input, K teacher passes with
dropout on give K feature vectors f_k, and the student's feature f_s chooses among them:

    a = softmax_k( <f_s, f_k> / h ), set to 0 below its e-th percentile over k, renormalised
    L = hard_weight * CE(z_s, y) + feature_weight * (1/D) || f_s - sum_k a_k f_k ||^2

Student: the classifier's input before its own dropout; teacher: after it. Tested as one plain
deterministic pass. ``detach_weights`` keeps the gradient out of a (the released code lets it in).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.losses.features import feature_mse
from kd_lightning.losses.guidance import (
    attention_weights,
    dot_similarity,
    filter_weights,
    guided_target,
    passes_kept,
    weight_entropy,
)
from kd_lightning.losses.labels import label_cross_entropy
from kd_lightning.methods.base import Distiller, check_positive, check_weights
from kd_lightning.models.stochastic import require_dropout, sample_features


class StochasticSelfDistillation(Distiller):
    """One net; the student chooses among its teacher's dropout passes.

    Args:
        num_passes: K.
        bandwidth: h; "auto" is sqrt(D), which follows the feature's scale.
        percentile: e in [0, 100), of each sample's K weights.
        renormalize: kept weights sum to 1; without it the target shrinks.
        detach_weights: no gradient through the weights.
        similarity: (f_s (B, D), f_k (K, B, D)) -> (B, K).
        start_from_teacher: False: random weights, which the paper found to end below the baseline.
        hard_weight, feature_weight: of the labels and of the teacher's features.
        max_rows: most rows in one teacher pass, where dropout stands in the blocks.
    """

    def __init__(
        self,
        *,
        num_passes: int = 30,
        bandwidth: float | Literal["auto"] = 5.0,
        percentile: float = 90.0,
        renormalize: bool = True,
        detach_weights: bool = True,
        similarity: Callable[[Tensor, Tensor], Tensor] = dot_similarity,
        start_from_teacher: bool = True,
        hard_weight: float = 1.0,
        feature_weight: float = 1.0,
        max_rows: int = 1024,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        if len(self.students) != 1:
            raise UserError(
                f"stochastic_self_distillation has one student, got {len(self.students)}"
            )
        check_positive(num_passes=num_passes, max_rows=max_rows)
        if bandwidth != "auto":
            check_positive(bandwidth=bandwidth)
        check_weights(hard_weight=hard_weight, feature_weight=feature_weight)
        if not 0 <= percentile < 100:
            raise UserError(
                f"percentile must be in [0, 100), got {percentile} (method.percentile=…)"
            )
        require_dropout(self.teacher)
        (self.key,) = self.students
        if start_from_teacher:
            self._start_from_teacher()
        self.num_passes = num_passes
        self.bandwidth = None if bandwidth == "auto" else bandwidth
        self.percentile = percentile
        self.renormalize = renormalize
        self.detach_weights = detach_weights
        self.similarity = similarity
        self.hard_weight = hard_weight
        self.feature_weight = feature_weight
        self.max_rows = max_rows
        self._proved = False

    def _start_from_teacher(self) -> None:
        try:
            self.students[self.key].load_state_dict(self.teacher.state_dict())
        except RuntimeError as error:
            raise UserError(
                "the student of self-distillation is its teacher's twin, and these two nets differ:"
                " choose both with model@method.teacher=…, or set method.start_from_teacher=false"
            ) from error

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        samples = self.teacher_samples(x)
        student = self.forward_student(self.key, x)
        guide = student.features.detach() if self.detach_weights else student.features
        attention = attention_weights(
            guide, samples, bandwidth=self.bandwidth, similarity=self.similarity
        )
        weights = filter_weights(
            attention, percentile=self.percentile, renormalize=self.renormalize
        )
        hard = label_cross_entropy(student.logits, y)
        feature = feature_mse(student.features, guided_target(weights, samples))
        return self.log_losses(
            {
                f"{self.key}/hard": self.hard_weight * hard.mean(),
                f"{self.key}/feature": self.feature_weight * feature.mean(),
            },
            also={
                "guidance/passes_kept": passes_kept(weights).mean(),
                "guidance/attention_entropy": weight_entropy(attention).mean(),
                "guidance/weight_entropy": weight_entropy(weights).mean(),
            },
        )

    def teacher_samples(self, x: Tensor) -> Tensor:
        """K random features of each input, (K, B, D); their masks have a stream of their own."""
        self.seed_step_stream("teacher_masks")
        samples = sample_features(self.teacher, x, self.num_passes, self.max_rows)
        if not self._proved:
            pair = samples[:2] if self.num_passes > 1 else sample_features(self.teacher, x, 2)
            if torch.equal(pair[0], pair[1]):
                raise UserError(
                    "two stochastic passes of the teacher are equal, so there is nothing to choose "
                    "from: raise method.teacher.dropout or method.teacher.block_dropout"
                )
            self._proved = True
        return samples
