"""A method without a teacher whose student has branches that are thrown away; of no use."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.base.streams import seed_stream
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.methods.base import Learner
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.layer_outputs import LayerOutputs, layer_shapes


class Branched(Learner):
    """Labels for the student's head, and for two branches at one of its layers, used in turn.

    Args:
        input_shape: of a sample.
        layer: that the branches begin at; "": the middle one of those with an output.
    """

    has_unused_parameters = True  # a step uses one of two branches

    def __init__(self, *, input_shape: Sequence[int], layer: str = "", **learner: Any) -> None:
        super().__init__(**learner)
        self.branches, self.layers = nn.ModuleDict(), {}
        for key, net in self.students.items():
            shapes = layer_shapes(net, torch.zeros(1, *input_shape))
            found = list(shapes)
            self.layers[key] = layer or found[len(found) // 2]
            seed_stream(self.seed, "branch", key)
            size = torch.Size(shapes[self.layers[key]]).numel()
            self.branches[key] = nn.ModuleList(
                nn.Sequential(nn.Flatten(), nn.Linear(size, self.num_classes)) for _ in range(2)
            )
        self.outputs = {
            key: LayerOutputs(net, [self.layers[key]]) for key, net in self.students.items()
        }

    def own_modules(self) -> Mapping[str, nn.Module]:
        return dict(self.branches.items())

    def unsupported(self) -> dict[str, str]:
        return {"compile": "its steps differ: each uses one of two branches"}

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        terms = {}
        for key in self.students:
            with self.outputs[key].record() as outputs:
                student = self.forward_student(key, x)
            branch = self.branches[key][self.steps_done % 2](outputs[self.layers[key]])
            terms[f"{key}/hard"] = label_cross_entropy(student.logits, y).mean()
            terms[f"{key}/branch"] = label_cross_entropy(branch, y).mean()
        return Losses(terms)
