"""Distillation by uncertainty-aware mixup (UNIX), arXiv 2012.09413, as released.

The teacher is asked about k of the B samples of a batch: about those of which the student is least
sure, into which the others are mixed. With positions r = 0, ..., B - 1, the most uncertain first,
and one lambda ~ U(0, 1) for the batch:

    share_r = lambda * sigmoid(w (r/B - (2b - 1) / (2B)))
    x_r     = (1 - share_r) x_order(r) + share_r x_random(r),   r < k
    L = hard_weight * mean_r[(1 - share_r) CE(z_r, y_order(r)) + share_r CE(z_r, y_random(r))]
        + soft_weight * mean_r[ T^2 KL(softmax(z_t(x_r) / T) || softmax(z(x_r) / T)) ]

Defaults are those of the released code: k = 48 and b = 32 of B = 64, w = 10, T = 4, no labels. Here
k and b are shares, so that a short batch has them too. Ours is ``scoring``: the released pass that
scores the batch moves the running averages of batch norm a second time, on samples that are not
mixed (``scoring=train``). Its entropy is NaN at a probability of 0; ours is finite. Its optional
feature losses are left out.

Each student scores and mixes for itself, so the teacher is asked for each. Controls are options:
``score=random``, ``mix=false``, ``steepness=0``.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.base.errors import unknown
from kd_lightning.base.ranges import NotNegative, Share, ShareAboveZero, Temperature
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.modes import in_mode
from kd_lightning.uncertainty.ordered_mixup import (
    entropy_score,
    margin_score,
    max_probability_score,
    mix_in_order,
)

SCORES = {
    "entropy": entropy_score,
    "max_probability": max_probability_score,
    "margin": margin_score,
    "random": None,
}
SCORING = ("batch", "train", "eval")


class Draws(NamedTuple):
    """The random numbers of a batch."""

    strength: Float[Tensor, ""]
    partners: Int[Tensor, "B"]
    score: Float[Tensor, "B"]


class UncertaintyMixup(Distiller):
    """Students that choose what their teacher is asked.

    Args:
        score: how uncertain a student is: "entropy", "max_probability", "margin"; or "random".
        scoring: mode of the student in the pass that scores, as in ``in_mode``: "batch", "train"
            or "eval".
        mix: False: the chosen samples are not mixed.
        teacher_share: k / B, share of a batch about which the teacher is asked, in (0, 1]. At
            least one sample is asked.
        boundary: b / B, share of a batch that is mixed by less than lambda / 2, in [0, 1].
        steepness: w, of the step at the boundary; 0: all are mixed by lambda / 2.
        temperature: T, of both softmaxes.
        hard_weight: of the labels.
        soft_weight: of the teacher's soft targets; 0: the teacher is not asked.
    """

    def __init__(
        self,
        *,
        score: str = "entropy",
        scoring: str = "batch",
        mix: bool = True,
        teacher_share: ShareAboveZero = 0.75,
        boundary: Share = 0.5,
        steepness: NotNegative = 10.0,
        temperature: Temperature = 4.0,
        hard_weight: NotNegative = 0.0,
        soft_weight: NotNegative = 1.0,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        if score not in SCORES:
            raise unknown("score", score, SCORES, "method.score")
        if scoring not in SCORING:
            raise unknown("mode", scoring, SCORING, "method.scoring")
        check_weights(hard_weight=hard_weight, soft_weight=soft_weight)
        self.score = SCORES[score]
        self.scoring = scoring
        self.mix = mix
        self.teacher_share = teacher_share
        self.boundary = boundary
        self.steepness = steepness
        self.temperature = temperature
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self._asked = 0  # samples of which the teacher was asked in this epoch

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        draws = self.draws(x)
        num_kept = max(1, round(self.teacher_share * len(x)))
        terms = {}
        for key in self.students:
            mixed = mix_in_order(
                x,
                draws.score if self.score is None else self.score(self.scoring_logits(key, x)),
                draws.partners,
                draws.strength if self.mix else 0.0,
                num_kept=num_kept,
                boundary=self.boundary,
                steepness=self.steepness,
            )
            logits = self.forward_student(key, mixed.x).logits
            own = label_cross_entropy(logits, y[mixed.first])
            partners = label_cross_entropy(logits, y[mixed.second])
            hard = (1 - mixed.share) * own + mixed.share * partners
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            if self.soft_weight:
                soft = soft_target_kl(logits, self.teacher_logits(mixed.x), self.temperature)
                terms[f"{key}/soft"] = self.soft_weight * soft.mean()
        asked = num_kept * len(self.students) if self.soft_weight else 0
        return Losses(terms, statistics=asked)

    def draws(self, x: Tensor) -> Draws:
        """From the stream (seed, rank, step): the same for all students."""
        self.seed_step_stream("uncertainty_mixup")
        strength, partners, score = (
            torch.rand(shape, device=x.device) for shape in ((), len(x), len(x))
        )
        return Draws(strength, partners.argsort(), score)

    @torch.no_grad()
    def scoring_logits(self, key: str, x: Tensor) -> Tensor:
        """What a student predicts for the whole batch before it is mixed, (B, C)."""
        self.seed_step_stream("scoring", key)
        with in_mode(self.students[key], self.scoring):
            return self.students[key](x).logits

    def update_statistics(self, statistics: int) -> None:
        self._asked += statistics

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        asked = float(self._asked)
        self.log("train/teacher_samples", asked, sync_dist=True, reduce_fx="sum")
        self._asked = 0

    @property
    def teacher_rows(self) -> float:
        return self.teacher_share * len(self.students) if self.soft_weight else 0

    def unsupported(self) -> dict[str, str]:
        return {
            "cache": "its teacher sees samples that it mixes anew at every step",
            "mixing": "it mixes samples itself",
        }
