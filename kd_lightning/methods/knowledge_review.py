"""Knowledge review (ReviewKD), Chen, Liu, Zhao and Jia 2021 (arXiv 2104.09044).

    L = hard_weight * CE(z, y) + soft_weight * T^2 KL(softmax(z_t / T) || softmax(z / T))
        + review_weight * sum over stages i of HCL(P_i(s_i, ..., s_n), t_i)

s_i and t_i are the feature maps of stage i, and at the end the means of the last maps over their
positions. P_i predicts t_i from the student's stage i and all later ones, which are fused with
attention from the last to the first (``review_fusion.py``). HCL is the squared difference of two
maps, and of their averages over smaller and smaller grids (``hierarchical_context.py``). The
fusions learn with the student and are no part of it.

As released: the fusions and HCL. The released weight depends on the pair of nets (0.6 for resnet56
and resnet20, 5 for resnet32x4 and resnet8x4, 8 for ShuffleNetV2 as student) and rises over the
first 20 of 240 epochs: ``review_ramp`` 0.083333. Ours: weight 1 without such a rise, and the
teacher's maps are those that its next stage gets, where the released code takes them before their
ReLU. Stages are found in any net; if the two nets have different numbers of them, the last ones are
paired.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.base.ranges import Count, NotNegative, Share, Temperature
from kd_lightning.base.streams import seed_stream
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.feature_loss import pooled
from kd_lightning.losses.hierarchical_context import hierarchical_context_loss
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.ramp import ramp
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.layer_outputs import LayerOutputs, Shape
from kd_lightning.models.net_stages import require_stages
from kd_lightning.models.review_fusion import ReviewFusion


class KnowledgeReview(Distiller):
    """Each student predicts the maps of the teacher's stages from its own and later stages.

    Args:
        input_shape: of one sample: (channels, height, width) or (channels, length).
        review: False: each stage is predicted from the same stage alone (the control).
        fusion_width: channels of the fusions; None: those of the student's last map, 512 at most.
        review_ramp: share of the run over which the review term rises from 0.
        temperature: T, of both softmaxes of the soft term.
        hard_weight: of the labels.
        soft_weight: of the teacher's soft targets.
        review_weight: of the sum over the stages.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        review: bool = True,
        fusion_width: Count | None = None,
        review_ramp: Share = 0.0,
        temperature: Temperature = 4.0,
        hard_weight: NotNegative = 1.0,
        soft_weight: NotNegative = 0.0,
        review_weight: NotNegative = 1.0,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        check_weights(hard_weight=hard_weight, soft_weight=soft_weight, review_weight=review_weight)
        self.review_ramp = review_ramp
        self.temperature = temperature
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.review_weight = review_weight
        self._build_fusions(input_shape, fusion_width, review)

    def _build_fusions(self, input_shape: Sequence[int], width: int | None, review: bool) -> None:
        theirs = require_stages(
            self.teacher, input_shape, whose="the teacher", key="model@method.teacher"
        )
        self.teacher_stages = LayerOutputs(self.teacher, theirs)
        self.student_stages: dict[str, LayerOutputs] = {}
        self.fusions = nn.ModuleDict()
        for key, net in self.students.items():
            mine = require_stages(
                net, input_shape, whose=f"student {key}", key=f"model@method.students.{key}"
            )
            self.student_stages[key] = LayerOutputs(net, mine)
            seed_stream(self.seed, "fusions", key)
            shapes = [with_mean_shape(shapes) for shapes in last_pairs(mine, theirs)]
            self.fusions[key] = ReviewFusion(*shapes, width, review=review)

    def own_modules(self) -> dict[str, nn.Module]:
        return dict(self.fusions.items())

    def unsupported(self) -> dict[str, str]:
        return {"cache": "it needs feature maps of the teacher, which a cache does not hold"}

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        with self.teacher_stages.record() as targets, torch.no_grad():
            teacher = self.teacher(x)  # not its fast copy, where layers may be folded away
        review_weight = self.review_weight * ramp(progress, self.review_ramp)
        terms = {}
        for key, fusions in self.fusions.items():
            with self.student_stages[key].record() as maps:
                student = self.forward_student(key, x)
            mine, theirs = map(with_mean, last_pairs(maps, targets))
            pairs = zip(fusions(mine), theirs, strict=True)
            review = sum(hierarchical_context_loss(made, target) for made, target in pairs)
            hard = label_cross_entropy(student.logits, y)
            soft = soft_target_kl(student.logits, teacher.logits, self.temperature)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            terms[f"{key}/soft"] = self.soft_weight * soft.mean()
            terms[f"{key}/review"] = review_weight * review.mean()
        return Losses(terms)


def last_pairs(student: dict[str, Any], teacher: dict[str, Any]) -> tuple[list, list]:
    """What belongs to the last stages of both nets, as many as both have, in their order."""
    num = min(len(student), len(teacher))
    return list(student.values())[-num:], list(teacher.values())[-num:]


def with_mean(maps: list[Tensor]) -> list[Tensor]:
    """With the mean of the last map (B, D, *size) over its positions, as a map of one position."""
    return [*maps, pooled(maps[-1]).view(*maps[-1].shape[:2], *[1] * (maps[-1].ndim - 2))]


def with_mean_shape(shapes: list[Shape]) -> list[Shape]:
    """The shapes of ``with_mean`` for one sample, from those of the maps."""
    return [*shapes, (shapes[-1][0], *[1] * (len(shapes[-1]) - 1))]
