"""Mean teacher, Tarvainen and Valpola 2017 (arXiv 1703.01780): a student learns from its average.

    L = hard_weight * CE(z, y)
        + consistency_weight * r * mean_x[ (1/C) || softmax(z) - softmax(z') ||^2 ]
    after each step t:  w' = a w' + (1 - a) w,  a = min(1 - 1 / (t + 1), decay)

z' is the pass of a net with the averaged weights w', which gets no gradient. r rises as
exp(-5 (1 - s)^2) while s rises from 0 to 1 over ``consistency_ramp`` of the run.

The loss, the mean over the classes, the weight 100, the rise and a are those of the released code
(https://github.com/CuriousAI/mean-teacher). The paper's decay is 0.99 during the rise and 0.999
after it; here it is one number. The rest of its recipe belongs to the data, not to the method.

CE is the mean over the labeled samples. The released TensorFlow code, from which the weight and the
rise are, divides CE by the number of all samples and scales the weight by the labeled share, which
is the same balance. Ours: the average starts as a copy of the student. Batch norm's statistics are
averaged with the weights, and the average's pass uses them; as released, that pass uses the
statistics of its batch.
The two passes see the same augmented sample and differ by their dropout masks, where the paper
augments each by itself. The student is validated and tested, as with every other method. The paper
expects its average to be better: ``callbacks=ema`` tests an average of the same weights instead.

It is a control of self-distillation: a target that the student makes itself, without a teacher that
was trained before.
"""

import copy
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kd_lightning.base.ranges import NotNegative, Share, ShareBelowOne
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.losses.feature_distance import feature_mse
from kd_lightning.methods.base import Learner
from kd_lightning.methods.checks import check_weights
from kd_lightning.methods.ramp import sigmoid_ramp
from kd_lightning.methods.step import Cached, Losses
from kd_lightning.models.averages import move_averages
from kd_lightning.models.stochastic import dropout_on


class MeanTeacher(Learner):
    """Each student learns from labels, and from the moving average of its own weights.

    Args:
        decay: the largest share of the old average in the next one, in [0, 1).
        hard_weight: of the labels.
        consistency_weight: of the squared difference of probabilities, mean over the classes; 0:
            training from labels alone.
        consistency_ramp: share of the run over which the consistency rises.
    """

    takes_unlabeled = True

    def __init__(
        self,
        *,
        decay: ShareBelowOne = 0.99,
        hard_weight: NotNegative = 1.0,
        consistency_weight: NotNegative = 100.0,
        consistency_ramp: Share = 0.25,
        **learner: Any,
    ) -> None:
        super().__init__(**learner)
        check_weights(hard_weight=hard_weight, consistency_weight=consistency_weight)
        self.decay = decay
        self.hard_weight = hard_weight
        self.consistency_weight = consistency_weight
        self.consistency_ramp = consistency_ramp
        copies = {key: copy.deepcopy(net) for key, net in self.students.items()}
        self.averages = nn.ModuleDict(copies).requires_grad_(False).eval()

    def own_modules(self) -> dict[str, nn.Module]:
        return dict(self.averages.items())

    def train(self, mode: bool = True) -> "MeanTeacher":
        super().train(mode)
        self.averages.eval()  # or the batches would move its batch norm, beside the average
        return self

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        weight = self.consistency_weight * sigmoid_ramp(progress, self.consistency_ramp)
        terms = {}
        for key in self.students:
            target = self.average_logits(key, x)
            logits = self.forward_student(key, x).logits
            hard = label_cross_entropy(logits[: len(y)], y)
            terms[f"{key}/hard"] = self.hard_weight * hard.mean()
            terms[f"{key}/consistency"] = weight * probability_mse(logits, target).mean()
        return Losses(terms)

    @torch.no_grad()
    def average_logits(self, key: str, x: Tensor) -> Float[Tensor, "B C"]:
        """The logits of a student's average, with dropout masks from a stream of its own."""
        self.seed_step_stream("average", key)
        with dropout_on(self.averages[key]):
            return self.averages[key](x).logits

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        self.update_averages(self.global_step + 1)  # which does not count this step yet

    def update_averages(self, steps: int) -> None:
        """Moves each average towards its student, after ``steps`` steps of the run."""
        weight_of_new = max(1 / (steps + 1), 1 - self.decay)
        for key, net in self.students.items():
            average = self.averages[key]
            move_averages(
                chain(average.parameters(), average.buffers()),
                chain(net.parameters(), net.buffers()),
                weight_of_new,
            )


def probability_mse(
    logits: Float[Tensor, "B C"], target_logits: Float[Tensor, "B C"]
) -> Float[Tensor, "B"]:
    """``(1/C) ||softmax(z) - softmax(z')||^2``, in [0, 2/C], in float32.

    Zero when the two predictions are equal. The gradient goes to z alone.
    """
    target = target_logits.detach().float().softmax(dim=1)
    return feature_mse(logits.float().softmax(dim=1), target)
