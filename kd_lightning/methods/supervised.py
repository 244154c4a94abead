"""Training from labels alone: the teacher's own training, and the baseline of every method."""

from typing import Any

from torch import Tensor

from kd_lightning.base.ranges import ShareBelowOne
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.methods.base import Learner
from kd_lightning.methods.step import Cached, Losses


class Supervised(Learner):
    """Cross-entropy with the labels, for each student by itself.

    Args:
        label_smoothing: share of the label spread evenly over all classes, in [0, 1).
    """

    def __init__(self, *, label_smoothing: ShareBelowOne = 0.0, **learner: Any) -> None:
        super().__init__(**learner)
        self.label_smoothing = label_smoothing

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        return Losses(
            {
                f"{key}/hard": label_cross_entropy(student.logits, y, self.label_smoothing).mean()
                for key, student in self(x).items()
            }
        )
