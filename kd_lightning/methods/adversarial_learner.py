"""What adversarial training and distillation share: the attack on a student that is being trained,
and its accuracy under this attack on val.

The attack is ``losses.attacks.pgd`` in the largest change of a value (L-inf). Images are attacked
as floats in [0, 1], and stay there; the nets normalize by themselves. Series are attacked in their
own units, without bounds. The accuracy under an attack is an upper bound: stronger attacks exist.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from kd_lightning.base.errors import unknown
from kd_lightning.base.ranges import Count, NotNegative, Positive
from kd_lightning.base.streams import seed_stream
from kd_lightning.losses.attacks import as_floats, pgd
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.methods.base import Learner
from kd_lightning.models.modes import MODES, Mode, in_mode

CHOICES = ("robust_accuracy", "accuracy")


class AdversarialLearner(Learner):
    """A Learner whose students are attacked in training and on val. ``losses`` is still to be
    defined.

    The default attack is the field's on CIFAR-10: 8/255 in ten steps of 2/255.

    Args:
        epsilon: largest change of a value, in units of a [0, 1] image or of the raw series; 0: no
            attack.
        step_size: change of a value in one step, in the same units.
        steps: number of gradients of one attack, each as dear as a training step.
        random_start: the attack starts at a random point of the ball, not at the sample.
        attack_mode: of the student during an attack in training: "eval": running statistics of
            batch norm. "train": statistics of the attacked batch, which update the running ones.
            "batch": the same, and the running ones stay as they are. On val it is always "eval".
        choose_by: the metric on val that chooses each student's weights.
        val_epsilon: ``epsilon`` of the attack on val; None: that of training.
    """

    val_names: ClassVar = (*Learner.val_names, "robust_accuracy")

    def __init__(
        self,
        *,
        epsilon: NotNegative = 8 / 255,
        step_size: Positive = 2 / 255,
        steps: Count = 10,
        random_start: bool = True,
        attack_mode: Mode = "eval",
        choose_by: str = "robust_accuracy",
        val_epsilon: NotNegative | None = None,
        **learner: Any,
    ) -> None:
        super().__init__(**learner)
        if attack_mode not in MODES:
            raise unknown("mode", str(attack_mode), MODES, "method.attack_mode")
        if choose_by not in CHOICES:
            raise unknown("metric", str(choose_by), CHOICES, "method.choose_by")
        self.epsilon = epsilon
        self.step_size = step_size
        self.steps = steps
        self.random_start = random_start
        self.attack_mode = attack_mode
        self.chosen_by = choose_by
        self.val_epsilon = val_epsilon

    def unsupported(self) -> dict[str, str]:
        return {"compile": "an attack needs gradients inside of a step"}

    def attacked(
        self,
        key: str,
        x: Float[Tensor, "B *shape"],
        objective: Callable[[Tensor], Tensor],
        *stream: int | str,
        mode: Mode = "eval",
        epsilon: float | None = None,
    ) -> Float[Tensor, "B *shape"]:
        """Samples near ``x`` on which a student does badly.

        Args:
            x: images in [0, 1], or series; from ``as_floats``.
            objective: the student's logits (B, C) -> what the attack raises, (B,).
            stream: the numbers from which what is random follows, besides the seed; none: the rank
                and the step.
            mode: of the student.
            epsilon: largest change of a value; None: that of training.
        """
        size = self.epsilon if epsilon is None else epsilon
        if not size:
            return x
        student = self.students[key]
        # also without a random start: a student in training draws the masks of its dropout
        self._seed_attack(key, *stream)
        noise = torch.empty_like(x).uniform_(-1, 1) if self.random_start else None
        with in_mode(student, mode):
            return pgd(
                lambda u: objective(student(u).logits),
                x,
                epsilon=size,
                step_size=self.step_size,
                steps=self.steps,
                noise=noise,
                bounds=(0.0, 1.0) if x.ndim == 4 else None,
            )

    def _seed_attack(self, key: str, *stream: int | str) -> None:
        if stream:
            seed_stream(self.seed, *stream, key, self.global_rank, device=self.device)
        else:
            self.seed_step_stream("attack", key)

    # On val

    def _new_metrics(self) -> nn.ModuleDict:
        metrics = super()._new_metrics()
        metrics["robust_accuracy"] = MulticlassAccuracy(
            self.num_classes, average="micro", validate_args=False
        )
        return metrics

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        # before the clean pass: under autocast that one would leave weights without a gradient
        attacked = {key: self._attacked_on_val(key, *batch, batch_idx) for key in self.students}
        super().validation_step(batch, batch_idx)
        for key, x in attacked.items():
            self.val_metrics[key]["robust_accuracy"].update(self.students[key](x).logits, batch[1])

    @torch.inference_mode(False)  # Lightning validates in it, and it has no gradients
    def _attacked_on_val(self, key: str, x: Tensor, y: Tensor, batch_idx: int) -> Tensor:
        """The same at every epoch."""
        objective = partial(label_cross_entropy, labels=y.clone())  # made in inference mode
        stream = ("attack on val", batch_idx)
        floats = as_floats(x.clone())
        return self.attacked(key, floats, objective, *stream, epsilon=self.val_epsilon)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log_val_mean("robust_accuracy")
