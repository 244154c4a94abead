"""Teacher evolution by self-knowledge distillation (TESKD), arXiv 2110.00329, as released.

A net trains together with branches on its own stages, which learn from the labels and from the net.
Their gradients reach the stages that they share with it. They are thrown away after training. With
z, f the net's logits and the mean of its last map, and z_i, b_i those of branch i
(``feature_pyramid.py``):

    L = hard_weight * CE(z, y) + branch_weight * sum_i CE(z_i, y)
        + soft_weight * sum_i T^2 KL(softmax(z / T) || softmax(z_i / T))
        + feature_weight * sum_i sum_{b,d} 1[f > 0 or b_i > 0] (b_i - sg[f])^2

The weights 0.2, 0.2, 0.8 and 1e-7, T = 4, the sum over the batch in the last term, and a soft
target that is not detached are those of the released code. Ours: the width of the branches and
their sizes follow from the net's maps, so it can be any net with two stages or more, also of
series. Two things of that code are not copied: it adds 1e-7 to the softened target, against log 0,
which cannot occur here; and it chooses its best epoch on test.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from kd_lightning.base.errors import unknown
from kd_lightning.base.ranges import Count, NotNegative, Temperature
from kd_lightning.base.streams import seed_stream
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.feature_distance import active_squared_distance
from kd_lightning.losses.feature_loss import pooled
from kd_lightning.losses.soft_targets import joint_soft_kl, soft_target_kl
from kd_lightning.methods.base import Learner
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.feature_pyramid import FeaturePyramid
from kd_lightning.models.layer_outputs import LayerOutputs
from kd_lightning.models.net_stages import require_stages
from kd_lightning.models.outputs import ModelOutput

REDUCTIONS = ("sum", "mean")


class TeacherEvolution(Learner):
    """Students, each with branches of its own that it teaches and that improve it.

    Args:
        input_shape: of one sample: (channels, height, width) or (channels, length).
        branch_width: channels inside the branches; None: those of the student's last map.
        temperature: T, of the student and its branches in the soft term.
        detach_target: whether the soft term gives no gradient to the student's own logits.
        feature_reduction: "sum": over the batch of a device and over dimensions, so the term grows
            with that batch; "mean": over both.
        hard_weight: of the labels, for the student.
        branch_weight: of the labels, for each branch.
        soft_weight: of the student's prediction, for each branch.
        feature_weight: of the student's features, for each branch.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        branch_width: Count | None = None,
        temperature: Temperature = 4.0,
        detach_target: bool = False,
        feature_reduction: Literal["sum", "mean"] = "sum",
        hard_weight: NotNegative = 0.2,
        branch_weight: NotNegative = 0.2,
        soft_weight: NotNegative = 0.8,
        feature_weight: NotNegative = 1e-7,
        **learner: Any,
    ) -> None:
        super().__init__(**learner)
        check_weights(
            hard_weight=hard_weight,
            branch_weight=branch_weight,
            soft_weight=soft_weight,
            feature_weight=feature_weight,
        )
        if feature_reduction not in REDUCTIONS:
            raise unknown("reduction", feature_reduction, REDUCTIONS, "method.feature_reduction")
        self.temperature = temperature
        self.soft_loss = soft_target_kl if detach_target else joint_soft_kl
        self.feature_reduction = feature_reduction
        self.hard_weight = hard_weight
        self.branch_weight = branch_weight
        self.soft_weight = soft_weight
        self.feature_weight = feature_weight
        self.branches = nn.ModuleDict()
        self.stage_outputs: dict[str, LayerOutputs] = {}
        for key, net in self.students.items():
            stages = require_stages(
                net, input_shape, whose=f"student {key}", key=f"model@method.students.{key}"
            )
            seed_stream(self.seed, "branches", key)
            shapes = list(stages.values())
            self.branches[key] = FeaturePyramid(shapes, self.num_classes, branch_width)
            self.stage_outputs[key] = LayerOutputs(net, stages)

    def own_modules(self) -> dict[str, nn.Module]:
        return dict(self.branches.items())

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        terms = {}
        for key in self.students:
            with self.stage_outputs[key].record() as outputs:
                student = self.forward_student(key, x)
            maps = list(outputs.values())
            branches = self.branches[key](maps)
            target = pooled(maps[-1]).detach()
            hard = label_cross_entropy(student.logits, y)
            of_labels = sum(label_cross_entropy(one.logits, y) for one in branches)
            soft = sum(
                self.soft_loss(one.logits, student.logits, self.temperature) for one in branches
            )
            feature = sum(self.feature_loss(one, target) for one in branches)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            terms[f"{key}/branch"] = self.branch_weight * of_labels.mean()
            terms[f"{key}/soft"] = self.soft_weight * soft.mean()
            terms[f"{key}/feature"] = self.feature_weight * feature
        return Losses(terms)

    def feature_loss(self, branch: ModelOutput, target: Tensor) -> Tensor:
        """Squared distance of a branch's features to the student's, a scalar."""
        distance = active_squared_distance(branch.features, target)
        if self.feature_reduction == "sum":
            return distance.sum()
        return distance.mean() / target.shape[1]
