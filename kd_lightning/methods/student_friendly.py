"""Student-friendly teachers (SFTN), Park et al. 2021 (arXiv 2102.07650), after the paper's
description.

It trains a net that is to teach later. Branches at its stages end with the last stages of the later
student's net, each a copy with weights of its own. So the teacher learns features on which such a
student can work. The branches are thrown away. With z, p the logits and the prediction of the net
that learns, and z_i, p_i those of branch i of N:

    L = hard_weight * CE(z, y) + branch_weight * mean_i CE(z_i, y)
        + soft_weight * mean_i T^2 KL(sg[p] || p_i)

There is no released code. The weights 1, 1 and 3 and T = 1 are from memory of the paper. The
direction of the divergence, the detached target and the factor T^2 are ours.

A branch is at each stage that has a corresponding one in the student's net
(``models/stage_branches.py``). It begins with a convolution of size 1, batch norm and ReLU, to the
student's channels.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError, unknown, with_full_keys
from kd_lightning.base.ranges import NotNegative, Temperature
from kd_lightning.base.streams import seed_stream
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.soft_targets import joint_soft_kl, soft_target_kl
from kd_lightning.methods.base import Learner
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.layer_outputs import LayerOutputs, Shape
from kd_lightning.models.net_stages import require_stages
from kd_lightning.models.stage_branches import LinearBranch, StudentBranch, stage_pairs

KINDS = ("student", "linear")
BRANCH_NET = "the net of the branches, by default the first student's,"


class StudentFriendly(Learner):
    """Nets, each a later teacher, with branches of the later student's architecture.

    Args:
        input_shape: of one sample: (channels, height, width) or (channels, length).
        branch_net: makes the later student's net, with new random weights. A run puts that of its
            first student in the place of None.
        branches: "student": a branch ends as the student's net; "linear": with the mean over
            positions and a linear layer, which is deep supervision, the control.
        temperature: T, of the net and its branches in the soft term.
        detach_target: whether the soft term gives no gradient to the net's own logits.
        hard_weight: of the labels, for the net.
        branch_weight: of the labels, for the mean of the branches.
        soft_weight: of the net's prediction, for the mean of the branches.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        branch_net: Callable[[], nn.Module] | None,
        branches: Literal["student", "linear"] = "student",
        temperature: Temperature = 1.0,
        detach_target: bool = True,
        hard_weight: NotNegative = 1.0,
        branch_weight: NotNegative = 1.0,
        soft_weight: NotNegative = 3.0,
        **learner: Any,
    ) -> None:
        super().__init__(**learner)
        check_weights(hard_weight=hard_weight, branch_weight=branch_weight, soft_weight=soft_weight)
        if branches not in KINDS:
            raise unknown("kind of branches", branches, KINDS, "method.branches")
        if branch_net is None:
            raise UserError("the later student's net must be given (model@method.branch_net=…)")
        self.temperature = temperature
        self.soft_loss = soft_target_kl if detach_target else joint_soft_kl
        self.hard_weight = hard_weight
        self.branch_weight = branch_weight
        self.soft_weight = soft_weight
        self.branches = nn.ModuleDict()
        self.stage_outputs: dict[str, LayerOutputs] = {}
        self._add_branches(branch_net, torch.zeros(1, *input_shape), branches)

    def _add_branches(
        self, branch_net: Callable[[], nn.Module], example: Tensor, kind: str
    ) -> None:
        """Fills ``branches`` and ``stage_outputs``."""
        seed_stream(self.seed, "branch net")
        theirs = stages_of(
            branch_net(), example, BRANCH_NET, "branch_net", "teacher.method.branch_net"
        )
        for key, net in self.students.items():
            mine = stages_of(net, example, f"student {key}", f"students.{key}", "method.teacher")
            self.branches[key] = nn.ModuleList()
            pairs = stage_pairs(mine, theirs)
            for name, other in pairs:
                seed_stream(self.seed, "branch", key, name)
                if kind == "linear":
                    branch = LinearBranch(mine[name], self.num_classes)
                else:
                    branch = student_branch(mine[name], other, theirs[other], branch_net, example)
                self.branches[key].append(branch)
            self.stage_outputs[key] = LayerOutputs(net, [name for name, _ in pairs])

    def own_modules(self) -> dict[str, nn.Module]:
        return dict(self.branches.items())

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        terms = {}
        for key in self.students:
            with self.stage_outputs[key].record() as outputs:
                student = self.forward_student(key, x)
            pairs = zip(self.branches[key], outputs.values(), strict=True)
            logits = [branch(stage) for branch, stage in pairs]
            hard = label_cross_entropy(student.logits, y)
            of_labels = sum(label_cross_entropy(z, y) for z in logits) / len(logits)
            soft = sum(self.soft_loss(z, student.logits, self.temperature) for z in logits)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            terms[f"{key}/branch"] = self.branch_weight * of_labels.mean()
            terms[f"{key}/soft"] = self.soft_weight * soft.mean() / len(logits)
        return Losses(terms)


def stages_of(
    net: nn.Module, example: Tensor, whose: str, key: str, key_for_teachers: str
) -> dict[str, Shape]:
    """The stages of a net; ``UserError`` with the keys that choose it if it has too few."""
    keys = f"model@method.{key}=… or, where this trains a teacher, model@{key_for_teachers}"
    return require_stages(net, example.shape[1:], whose=whose, key=keys)


def student_branch(shape: Shape, layer: str, *other: Any) -> StudentBranch:
    """A ``StudentBranch``; ``UserError`` with the key of its net if that cannot be cut."""
    try:
        return StudentBranch(shape, layer, *other)
    except UserError as error:
        raise UserError(with_full_keys(str(error), "method.branch_net")) from error
