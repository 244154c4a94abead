"""A method that uses what the contract has for a frozen teacher; no paper's, and of no use."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.base.streams import seed_stream
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.feature_distance import feature_mse
from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.stage import Stage
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.methods.views import rotations
from kd_lightning.models.layer_outputs import LayerOutputs, layer_shapes


class FitHead(Stage):
    """Fits a head that tells by how much the image of a teacher's features was rotated."""

    def __init__(self, *, head: nn.Module, learning_rate: float, **stage: Any) -> None:
        super().__init__(name="rotation-head", **stage)
        self.head = head
        self.learning_rate = learning_rate

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        views = rotations(batch[0])
        with torch.no_grad():
            features = self.teacher(views).features
        turns = torch.arange(4, device=views.device).repeat_interleave(len(batch[0]))
        loss = F.cross_entropy(self.head(features), turns)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)

    def settings(self) -> float:
        return self.learning_rate


class Everything(Distiller):
    """Adapters, a branch, a critic, a stage, views, layers and the teacher's head.

    Args:
        input_shape: of a sample.
        student_layer, teacher_layer: whose outputs are compared.
        stage_epochs: of the head.
        stage_learning_rate: of the head.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        student_layer: str,
        teacher_layer: str,
        stage_epochs: int = 2,
        stage_learning_rate: float = 0.05,
        **distiller: Any,
    ) -> None:
        super().__init__(**distiller)
        self.stage_epochs = stage_epochs
        self.stage_learning_rate = stage_learning_rate
        example = torch.zeros(1, *input_shape)
        theirs = layer_shapes(self.teacher, example)
        features = self.teacher.head.in_features
        self.student_layer, self.teacher_layer = student_layer, teacher_layer
        self.teacher_layers = LayerOutputs(self.teacher, [teacher_layer])
        self.student_layers = {
            key: LayerOutputs(net, [student_layer]) for key, net in self.students.items()
        }
        self.adapters, self.branches = nn.ModuleDict(), nn.ModuleDict()
        for key, net in self.students.items():
            seed_stream(self.seed, "own modules", key)
            mine = layer_shapes(net, example)
            self.adapters[key] = nn.ModuleList(
                [
                    nn.Linear(mine[student_layer][0], theirs[teacher_layer][0]),
                    nn.Linear(net.head.in_features, features),
                ]
            )
            self.branches[key] = nn.Linear(mine[student_layer][0], self.num_classes)
        self.critic = nn.Linear(features, 1)
        self.rotation_head = nn.Linear(features, 4)

    def own_modules(self) -> Mapping[str, nn.Module]:
        of_student = {
            key: nn.ModuleList([self.adapters[key], self.branches[key]]) for key in self.students
        }
        return {**of_student, "critic": self.critic}

    def stage(self) -> Stage:
        return FitHead(
            head=self.rotation_head,
            learning_rate=self.stage_learning_rate,
            teacher=self.teacher,
            max_epochs=self.stage_epochs,
        )

    @property
    def teacher_rows(self) -> int:
        return 4

    def unsupported(self) -> dict[str, str]:
        return {
            "cache": "it needs layers of the teacher, which a cache does not hold",
            "mixing": "the rotation of a mixed image is not defined",
        }

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        with self.teacher_layers.record() as theirs, torch.no_grad():
            teacher = self.teacher(rotations(x))
        target = theirs[self.teacher_layer][: len(x)].flatten(2).mean(2)
        terms, spread = {}, []
        for key in self.students:
            with self.student_layers[key].record() as mine:
                student = self.forward_student(key, x)
            of_layer, of_features = self.adapters[key]
            adapted = of_features(student.features)
            hard = label_cross_entropy(student.logits, y)
            soft = soft_target_kl(student.logits, teacher.logits[: len(x)], 2.0)
            feature = feature_mse(of_layer(mine[self.student_layer]), target)
            branch = label_cross_entropy(self.branches[key](mine[self.student_layer]), y)
            semantic = feature_mse(self.teacher_head(adapted), teacher.logits[: len(x)])
            turned = F.cross_entropy(self.rotation_head(adapted), torch.zeros_like(y))
            told = F.softplus(self.critic(adapted)) + F.softplus(
                -self.critic(teacher.features[: len(x)])
            )
            terms |= {
                f"{key}/hard": hard.mean(),
                f"{key}/soft": soft.mean(),
                f"{key}/feature": feature.mean(),
                f"{key}/branch": branch.mean(),
                f"{key}/semantic": 0.1 * semantic.mean(),
                f"{key}/rotation": 0.1 * turned,
                f"{key}/critic": 0.1 * told.mean(),
            }
            spread.append(adapted.detach().std())
        return Losses(terms, metrics={"adapted/spread": torch.stack(spread).mean()}, statistics=1)

    def update_statistics(self, statistics: int) -> None:
        self.steps_seen = getattr(self, "steps_seen", 0) + statistics

    def epoch_tables(self) -> Mapping[str, list[dict[str, float]]]:
        return {"everything": [{"steps": self.steps_seen}]}
