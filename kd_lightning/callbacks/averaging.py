"""Students whose weights are averaged as they train: SWA and EMA, by Lightning's WeightAveraging.

What is validated, chosen, kept as ``best-<key>.ckpt`` and left at the end is the average; what is
trained on are the weights themselves. Left out: Lightning's older ``StochasticWeightAveraging``.
It makes its average only after the last epoch, so no epoch's validation is of an average (but for
nets with batch norm, by one epoch more, with an optimizer step), the last epoch's weights are not
in it, and a run that is stopped early has none.
"""

from abc import abstractmethod
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.callbacks.progress import epochs_of
from kd_lightning.models.averages import refresh_batch_norm


class AveragedStudents(WeightAveraging):
    """Lightning's WeightAveraging, made right for students and a teacher.

    - The teacher is not averaged, and there is no second one in memory.
    - Until the first weights are averaged the average is the students as they are, not their
      initial weights.
    - Before an average is validated or saved, its batch-norm statistics are of all ranks.
    - A finished run that is resumed, which trains no epoch more, ends with the average too.

    ``last.ckpt`` holds the average (``state_dict``), the weights that training goes on with
    (``current_model_state``), and how many were averaged (``averaging_state``).

    Args:
        refresh_batch_norm: before every validation of a new average, and at every epoch's end,
            compute its batch-norm statistics anew, in a pass over the training part
            (``models.averages``); False: average the statistics as the weights are.
    """

    def __init__(self, *, refresh_batch_norm: bool) -> None:
        # on the CPU: of the copy only its counter stays there, where reading it waits for no device
        super().__init__(device="cpu", multi_avg_fn=self._blend)
        self.refresh_batch_norm = refresh_batch_norm
        self._whole_at: int | None = None  # the step after which the average was last made whole

    @abstractmethod
    def share_of_new(self, count: int) -> float:
        """What part of the next average are the new weights, when ``count`` were averaged."""

    @abstractmethod
    def in_words(self) -> str:
        """What the students' weights are, for tables."""

    @property
    def count(self) -> int:
        """How many weights the average is of."""
        return int(self._average_model.n_averaged)

    @property
    def students(self) -> nn.ModuleDict:
        """The averaged ones."""
        return self._average_model.module.students

    def setup(self, trainer: Trainer, method: LightningModule, stage: str) -> None:
        super().setup(trainer, method, stage)
        average = self._average_model.module
        if hasattr(average, "teacher") and "teacher" not in dict(average.named_children()):
            object.__setattr__(average, "teacher", nn.Identity())  # a frozen one is not copied

    def on_fit_start(self, trainer: Trainer, method: LightningModule) -> None:
        self._average_model.module.to(method.device)

    def on_validation_start(self, trainer: Trainer, method: LightningModule) -> None:
        self._make_whole(trainer, method)

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        self._make_whole(trainer, method)

    def on_fit_end(self, trainer: Trainer, method: LightningModule) -> None:
        # as on_train_end does, which is not called where a finished run is resumed
        self._copy_average_to_current(method)

    def _make_whole(self, trainer: Trainer, method: LightningModule) -> None:
        """Before the average is validated or saved."""
        if self._whole_at == trainer.global_step:
            return
        if not self.count:
            self._average_model.update_parameters(method)
            self._average_model.n_averaged.zero_()
        elif self.refresh_batch_norm:
            refresh_batch_norm(
                self.students.values(),
                # not the loader that training draws from: it may be in the middle of an epoch
                trainer.datamodule.train_dataloader(),
                device=method.device,
                precision=trainer.precision_plugin.forward_context,
            )
        self._swap_models(method)
        method.synchronize_students()
        self._swap_models(method)
        self._whole_at = trainer.global_step

    def _blend(self, averages: list[Tensor], news: list[Tensor], _: Tensor) -> None:
        share = self.share_of_new(self.count)
        for average, new in zip(averages, news, strict=True):
            if average.is_floating_point():
                average.lerp_(new, share)  # exact where both are equal, as a net's constants are
            else:
                average.copy_(new)


class SWA(AveragedStudents):
    """Stochastic weight averaging: the mean of the weights at the end of each epoch from ``start``.

    Izmailov et al. 2018, arXiv 1803.05407. It needs a learning rate that does not fall to zero, or
    it averages what hardly differs: ``scheduler=swa`` holds it from the same share of the run on.

    Args:
        start: share of the epochs that are done before the first is averaged, in [0, 1).
        refresh_batch_norm: True is the paper's.
    """

    def __init__(self, *, start: float = 0.75, refresh_batch_norm: bool = True) -> None:
        super().__init__(refresh_batch_norm=refresh_batch_norm)
        if not 0 <= start < 1:
            raise UserError(f"callbacks.swa.start must be in [0, 1), got {start}")
        self.start = start

    def setup(self, trainer: Trainer, method: LightningModule, stage: str) -> None:
        super().setup(trainer, method, stage)
        self._trainer = trainer

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        # after the last step, and not after the epoch, whose validation has then been already
        trainer = self._trainer
        is_last = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        has_begun = trainer.current_epoch >= int(self.start * epochs_of(trainer))
        return step_idx is not None and is_last and has_begun

    def share_of_new(self, count: int) -> float:
        return 1 / (count + 1)

    def in_words(self) -> str:
        if not self.count:
            return f"not averaged, for the run ended before {self.start:.0%} of its epochs"
        epochs = "epoch" if self.count == 1 else f"{self.count} epochs"
        return f"their mean over the ends of the last {epochs} (SWA)"


class EMA(AveragedStudents):
    """Exponential moving average: after every step, decay x average + (1 - decay) x weights.

    Args:
        decay: the largest, in [0, 1); 0: the weights themselves.
        warmup: begin with smaller ones, min(decay, (1 + n) / (10 + n)) after n steps, or a short
            run's average would be of its first weights.
        refresh_batch_norm: False is usual: the statistics move as slowly as the weights.
    """

    def __init__(
        self, *, decay: float = 0.999, warmup: bool = True, refresh_batch_norm: bool = False
    ) -> None:
        super().__init__(refresh_batch_norm=refresh_batch_norm)
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.warmup = warmup

    def share_of_new(self, count: int) -> float:
        return 1 - (min(self.decay, (1 + count) / (10 + count)) if self.warmup else self.decay)

    def in_words(self) -> str:
        reached = 1 - self.share_of_new(max(0, self.count - 1))
        short = f"{reached:.3g} at last, on the way to " if reached < self.decay else ""
        return f"their exponential moving average, decay {short}{self.decay:g}"


def averaging_of(trainer: Trainer) -> AveragedStudents | None:
    """The callback that averages this run's students, if there is one."""
    found: list[Any] = [one for one in trainer.callbacks if isinstance(one, AveragedStudents)]
    return found[0] if found else None
