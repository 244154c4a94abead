"""The steps of a run: how many are done, their random numbers, and the ways to compute one."""

from collections.abc import Callable, Hashable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kd_lightning.base.streams import seed_stream
from kd_lightning.methods.optimization import Optimization, has_scale
from kd_lightning.methods.recorded_step import RecordedStep
from kd_lightning.methods.step import Cached, Losses, Step, faults_of_compiler, step_of


class TrainingSteps(Optimization):
    """Counts a run's steps and computes them: as they are, compiled, or recorded on a GPU.

    Attributes:
        seed: of the run.
        compile_step: step -> a faster function with the same result; None: not compiled.
        record_step: (step, parameters, ...) -> a ``RecordedStep``; None: not recorded.
    """

    losses: Callable[..., Losses]
    seed: int

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.compile_step: Callable[[Callable[..., Step]], Callable[..., Step]] | None = None
        self.record_step: Callable[..., RecordedStep] | None = None
        self._fast_step: Callable[..., Step] | None = None

    # Where the run is

    @property
    def _batches_started(self) -> int:
        # not global_step, which does not move while gradients accumulate
        trainer = self.fit_trainer
        return trainer.fit_loop.epoch_loop.batch_progress.total.ready if trainer else 0

    @property
    def steps_done(self) -> int:
        """Steps of the run so far: of the optimizer, or batches where there are several."""
        if self.automatic_optimization:
            return self.global_step
        trainer = self.fit_trainer
        return trainer.fit_loop.epoch_loop.batch_progress.total.processed if trainer else 0

    @property
    def progress(self) -> float:
        """Share of the run's steps that are done, in [0, 1]; 1 outside a run."""
        trainer = self.fit_trainer
        if trainer is None:
            return 1.0
        return min(1.0, self.steps_done / max(1, trainer.estimated_stepping_batches))

    def seed_step_stream(self, *name: str) -> None:
        """Seeds the default generators from the stream (seed, name, rank, step).

        Does nothing inside a compiled or recorded step, which has one stream for all of it.
        """
        if torch.compiler.is_compiling():
            return
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return
        seed_stream(self.seed, *name, self.global_rank, self._batches_started, device=self.device)

    # The losses of a batch

    @property
    def step_variant(self) -> Hashable:
        """What ``losses`` reads that is neither a tensor nor constant. A recorded step is recorded
        again when it changes.
        """
        return None

    @property
    def has_fast_step(self) -> bool:
        """Whether steps are compiled or recorded."""
        return self.compile_step is not None or self.record_step is not None

    def compute_fast_step(self, x: Tensor, y: Tensor, cached: Cached) -> Step:
        """The losses of a batch by a compiled or recorded step."""
        self._fast_step = self._fast_step or self._make_fast_step()
        self.seed_step_stream("dropout")  # one stream: a graph cannot seed another inside
        return self._fast_step(x, y, cached, torch.full((), self.progress, device=x.device))

    def use_plain_step(self) -> None:
        """From now on steps are not compiled."""
        self.compile_step = self._fast_step = None

    def _step(self, *batch: Any) -> Step:
        return step_of(self.losses(*batch))

    def _make_fast_step(self) -> Callable[..., Step]:
        step = self._step if self.compile_step is None else self.compile_step(self._step)
        if self.record_step is None:
            return step
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return self.record_step(
            step, learning, scale=self._scaled, variant=lambda: self.step_variant
        )

    def _scaled(self, loss: Tensor) -> Tensor:
        if self.fit_trainer is None or not has_scale(self.fit_trainer):
            return loss
        return self.fit_trainer.precision_plugin.scaler.scale(loss)

    @property
    def has_gradients(self) -> bool:
        """Whether the last step has computed its gradients already, as a recorded step does."""
        return isinstance(self._fast_step, RecordedStep) and self._fast_step.has_gradients

    def backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        if self.has_gradients:
            return
        with faults_of_compiler() if self.compile_step else nullcontext():
            super().backward(loss, *arguments, **options)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        if not self.has_gradients:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def on_fit_end(self) -> None:
        super().on_fit_end()
        self._fast_step = None  # its memory

    def _apply(self, fn: Callable, recurse: bool = True) -> "TrainingSteps":
        self._fast_step = None  # a recording knows where the parameters were
        return super()._apply(fn, recurse)
