"""Averages of the students' weights during training: SWA and EMA, on Lightning's WeightAveraging.

The average is what is validated, chosen on val, saved as ``best-<key>.ckpt`` and tested. Training
continues with the weights themselves.

Left out: Lightning's older ``StochasticWeightAveraging``. It computes the average only after the
last epoch, so no epoch validates an average (except for nets with batch norm, which train one more
epoch with an optimizer step). Its average does not contain the last epoch's weights, and a run that
is stopped early has no average.
"""

from abc import abstractmethod
from itertools import chain

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn

from kd_lightning.base.ranges import ShareBelowOne
from kd_lightning.callbacks.progress import epochs_of
from kd_lightning.config.values import checked
from kd_lightning.models.averages import move_averages, refresh_batch_norm

FROZEN = ("teacher", "_fast_teacher")


class AveragedStudents(WeightAveraging):
    """Lightning's WeightAveraging, adapted to methods with students and a teacher.

    - A frozen teacher is not averaged or copied.
    - Before the first averaging step the average equals the current students, not their initial
      weights.
    - Before an average is validated or saved, its batch-norm statistics are averaged over all
      ranks.
    - A finished run that is resumed trains no further epoch; it ends with the average too.

    ``last.ckpt`` holds the average (``state_dict``), the weights that training continues with
    (``current_model_state``) and the number of averaged weights (``averaging_state``).

    Args:
        refresh_batch_norm: True: before every validation of a new average and at the end of every
            epoch, recompute its batch-norm statistics in a pass over the training part
            (``models.averages``). False: average the statistics like the weights.
    """

    def __init__(self, *, refresh_batch_norm: bool) -> None:
        # device="cpu": only the counter of the average stays there, so reading it does not wait for
        # the device. The weights move to the device in on_fit_start.
        super().__init__(device="cpu")
        self.refresh_batch_norm = refresh_batch_norm
        self._prepared_at: int | None = None  # the global step of the last _prepare_average

    @abstractmethod
    def weight_of_new(self, num_averaged: int) -> float:
        """Weight of the current weights in the next average, after ``num_averaged`` updates."""

    @abstractmethod
    def describe(self) -> str:
        """How the students' weights were averaged, for the table."""

    @property
    def num_averaged(self) -> int:
        """How many times weights were added to the average."""
        return int(self._average_model.n_averaged)

    @property
    def students(self) -> nn.ModuleDict:
        """The averaged students."""
        return self._average_model.module.students

    def setup(self, trainer: Trainer, method: LightningModule, stage: str) -> None:
        # a frozen teacher is no module of the method, and is not copied
        frozen = {key: vars(method)[key] for key in FROZEN if key in vars(method)}
        vars(method).update(dict.fromkeys(frozen, nn.Identity()))
        try:
            super().setup(trainer, method, stage)
        finally:
            vars(method).update(frozen)
        # torch's own sends its counter to the device at each step, and so waits for it
        self._average_model.update_parameters = self._add

    def on_fit_start(self, trainer: Trainer, method: LightningModule) -> None:
        self._average_model.module.to(method.device)

    def on_validation_start(self, trainer: Trainer, method: LightningModule) -> None:
        self._prepare_average(trainer, method)

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        self._prepare_average(trainer, method)

    def on_fit_end(self, trainer: Trainer, method: LightningModule) -> None:
        # like on_train_end, which is not called when a finished run is resumed
        self._copy_average_to_current(method)

    def _prepare_average(self, trainer: Trainer, method: LightningModule) -> None:
        """Makes the average ready to be validated or saved."""
        if self._prepared_at == trainer.global_step:
            return
        if not self.num_averaged:
            self._average_model.update_parameters(method)
            self._average_model.n_averaged.zero_()
        elif self.refresh_batch_norm:
            refresh_batch_norm(
                self.students.values(),
                # a new loader, because the one that training uses may be in the middle of an epoch
                trainer.datamodule.train_dataloader(),
                device=method.device,
                precision=trainer.precision_plugin.forward_context,
            )
        self._swap_models(method)
        method.synchronize_students()
        self._swap_models(method)
        self._prepared_at = trainer.global_step

    @torch.no_grad()
    def _add(self, method: LightningModule) -> None:
        """Adds the current weights to the average."""
        average = self._average_model
        averages = chain(average.module.parameters(), average.module.buffers())
        current = chain(method.parameters(), method.buffers())
        count = self.num_averaged
        move_averages(averages, current, self.weight_of_new(count) if count else 1.0)
        average.n_averaged += 1


class SWA(AveragedStudents):
    """Stochastic weight averaging: the mean of the weights at the end of each epoch from ``start``.

    Izmailov et al. 2018, arXiv 1803.05407. The learning rate must not fall to zero, or the averaged
    weights hardly differ: ``scheduler=swa`` holds it constant from the same share of the run on.

    Args:
        start: share of the epochs before the first averaged epoch, in [0, 1).
        refresh_batch_norm: True as in the paper.
    """

    @checked("callbacks.swa")
    def __init__(self, *, start: ShareBelowOne = 0.75, refresh_batch_norm: bool = True) -> None:
        super().__init__(refresh_batch_norm=refresh_batch_norm)
        self.start = start

    def setup(self, trainer: Trainer, method: LightningModule, stage: str) -> None:
        super().setup(trainer, method, stage)
        self._trainer = trainer

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        # after the last step of an epoch: at the end of the epoch its validation is already over
        trainer = self._trainer
        is_last = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        has_begun = trainer.current_epoch >= int(self.start * epochs_of(trainer))
        return step_idx is not None and is_last and has_begun

    def weight_of_new(self, num_averaged: int) -> float:
        return 1 / (num_averaged + 1)

    def describe(self) -> str:
        count = self.num_averaged
        if not count:
            return f"not averaged, for the run ended before {self.start:.0%} of its epochs"
        epochs = "epoch" if count == 1 else f"{count} epochs"
        return f"their mean over the ends of the last {epochs} (SWA)"


class EMA(AveragedStudents):
    """Exponential moving average: after every step, decay x average + (1 - decay) x weights.

    Args:
        decay: the largest decay, in [0, 1). With 0 the average equals the weights.
        warmup: begin with a smaller decay, min(decay, (1 + n) / (10 + n)) after n steps. Without
            it, the first weights would dominate the average of a short run.
        refresh_batch_norm: usually False, because the averaged statistics change as slowly as the
            averaged weights.
    """

    @checked("callbacks.ema")
    def __init__(
        self, *, decay: ShareBelowOne = 0.999, warmup: bool = True, refresh_batch_norm: bool = False
    ) -> None:
        super().__init__(refresh_batch_norm=refresh_batch_norm)
        self.decay = decay
        self.warmup = warmup

    def weight_of_new(self, num_averaged: int) -> float:
        n = num_averaged
        return 1 - (min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay)

    def describe(self) -> str:
        reached = 1 - self.weight_of_new(max(0, self.num_averaged - 1))
        short = f"{reached:.3g} at last, on the way to " if reached < self.decay else ""
        return f"their exponential moving average, decay {short}{self.decay:g}"


def averaging_of(trainer: Trainer) -> AveragedStudents | None:
    """The callback that averages this run's students, if there is one."""
    return next((c for c in trainer.callbacks if isinstance(c, AveragedStudents)), None)
