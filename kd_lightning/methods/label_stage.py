"""A stage in which students learn from labels alone, for a method that begins with trained ones."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kd_lightning.base.streams import seed_stream
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.methods.stage_recipe import RecipeStage


class LearnLabels(RecipeStage):
    """Cross-entropy with the labels, for each student by itself. Its last epoch is its result.

    Args:
        students: of the method, which goes on from the weights that they have here.
        seed: of the dropout streams.
    """

    learns_on: ClassVar[bool] = True
    config_keys = ("students",)  # the weights do not say all of a net, such as its dropout

    def __init__(self, *, students: nn.ModuleDict, seed: int, **stage: Any) -> None:
        super().__init__(name="labels", **stage)
        self.students = students
        self.seed = seed

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        x, y = batch[:2]
        losses = []
        for key, student in self.students.items():
            seed_stream(self.seed, "labels", key, self.global_step, device=x.device)
            losses.append(label_cross_entropy(student(x).logits, y).mean())
            self.log(f"{key}/hard", losses[-1].detach(), on_step=False, on_epoch=True)
        return torch.stack(losses).sum()
