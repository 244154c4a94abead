"""What every method shares: students, parameter groups, optimizers, metrics, logging.

A method adds its constructor and ``losses``, which reads like the paper's algorithm. Logged names
are ``train/<student>/<term>``, ``val/<student>/accuracy|nll|ece`` and the mean over the students,
``val/accuracy``. ``CONTRIBUTING.md`` explains every part of the contract by an example.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import Classes, Positive, Seed
from kd_lightning.base.streams import stream_seed
from kd_lightning.config.values import CheckedNumbers
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.methods.running_means import RunningMeans
from kd_lightning.methods.stage import Stage
from kd_lightning.methods.step import Cached, Losses, step_of
from kd_lightning.methods.training_steps import TrainingSteps
from kd_lightning.models.outputs import ModelOutput
from kd_lightning.uncertainty.calibration import CalibrationError

# Rows of a run's table and names of logged metrics that no student may have as its name.
OTHER_NETS = ("teacher", "ensemble", "vote", "uniform_soup", "greedy_soup")
OTHER_METRICS = (
    *("agreement", "confidence", "guidance", "weight", "areas", "policy"),
    *("accuracy", "robust_accuracy", "temperature"),
)

Rows = list[dict[str, float | None]]


class Learner(CheckedNumbers, TrainingSteps):
    """Trains students, one or more, on the same batches.

    Args:
        students: role ("student"; "a", "b") -> net.
        num_classes: C, of the data.
        optimizer: parameter groups -> optimizer.
        scheduler: (optimizer, total steps) -> scheduler, stepped once a batch; None: constant.
        learning_rates: parameter group -> its own learning rate, where it differs.
        seed: of the dropout streams.

    Attributes:
        takes_unlabeled: whether ``losses`` takes batches in which only the first rows of x have a
            label (``data.unlabeled``).
        needs_indices: whether ``cached`` must hold the ``index`` (B,) of each sample of a batch
            among the training samples.
        val_names: of the metrics of each student on val.
        chosen_by: the one of them that chooses the student's weights; higher is better.
    """

    section = "method"
    takes_unlabeled: bool = False
    needs_indices: bool = False
    val_names: ClassVar[Sequence[str]] = ("accuracy", "nll", "ece")
    chosen_by: str = "accuracy"

    def __init__(
        self,
        *,
        students: Mapping[str, nn.Module],
        num_classes: Classes,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        learning_rates: Mapping[str, Positive] | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(optimizer, scheduler, learning_rates)
        if not students:
            raise UserError("a method needs a student (model@method.students.student=…)")
        reserved = (*OTHER_NETS, *OTHER_METRICS)
        if wrong := [k for k in students if not k.isidentifier() or k in reserved]:
            raise UserError(
                f"a student's key is a short name such as a or b, got '{wrong[0]}' "
                "(method.students)"
            )
        self.students = nn.ModuleDict(students)
        self.num_classes = num_classes
        self.seed = seed
        self.running_means = RunningMeans()
        self._frozen: list[nn.Module] = []
        self._logged_at = 0
        self.val_metrics = nn.ModuleDict({key: self._new_metrics() for key in students})

    def _new_metrics(self) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                "accuracy": MulticlassAccuracy(
                    self.num_classes,
                    average="micro",
                    validate_args=False,  # which waits for the device
                ),
                "ece": CalibrationError(),
                "nll": MeanMetric(nan_strategy="disable"),
            }
        )

    # What a method may declare

    def losses(self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor) -> Losses:
        """The loss terms of a batch. Keeps no state: it may be compiled.

        Args:
            x: (B, C, *size).
            y: (B,) classes, or (B, C) class probabilities where samples are mixed. Shorter than x
                with ``data.unlabeled``: the labels of the first samples.
            cached: teacher outputs of this batch from a cache; None: no cache.
            progress: share of the run that is done, in [0, 1]; a scalar tensor in a compiled step,
                which would otherwise be compiled again for every new number.
        """
        raise NotImplementedError(f"{type(self).__name__} must define losses")

    def optimizer_steps(
        self, x: Tensor, y: Tensor, cached: Cached, progress: float | Tensor
    ) -> None:
        """All optimizer steps of a batch, one call of ``optimize`` for each. Only for methods with
        ``separate_optimizers``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define optimizer_steps")

    def stage(self) -> Stage | None:
        """Training that must be done once before this method's own; None: there is none."""
        return None

    def stages(self) -> Iterator[Stage]:
        """All of it, in order. Each stage is asked for when those before it are done."""
        if (stage := self.stage()) is not None:
            yield stage

    def use_labels(self, y: Tensor) -> None:
        """Called before a run, if ``needs_indices``, with the classes of all N training samples.
        Modules that depend on N are made here: a hook of the Trainer is too late for weight
        averaging, which copies the method before it.
        """

    def prepare(self, x: Tensor, cached: Cached) -> None:
        """Called before each step, outside the compiled graph. Work that must see the first batch
        belongs here.
        """

    def update_statistics(self, statistics: Any) -> None:
        """Called after each step with the ``statistics`` that ``losses`` returned."""

    def epoch_tables(self) -> Mapping[str, Rows]:
        """Rows to add at the end of an epoch: file name without ending -> rows. A run writes them
        as ``<name>.csv``, with a column ``epoch``, and keeps them in ``last.ckpt``.
        """
        return {}

    def unsupported(self) -> dict[str, str]:
        """What this method cannot be combined with -> why, as the end of a sentence.

        The keys are those of ``running.support.OPTIONS``: "unlabeled", "cache", "cache_top_k",
        "mixing", "compile". A run that asks for one of them is refused before anything is trained.
        """
        return {}

    # The students

    def forward(self, x: Tensor) -> dict[str, ModelOutput]:
        """Every student's output. In training each student draws from dropout streams of its own,
        so adding a student changes nothing for the others.
        """
        return {key: self.forward_student(key, x) for key in self.students}

    def forward_student(self, key: str, x: Tensor) -> ModelOutput:
        if self.training:
            self.seed_step_stream("dropout", key)
        return self.students[key](x)

    def augment(self, x: Tensor, augmentation: Any, name: str) -> Tensor:
        """A further view of a batch, by an augmentation of whole batches
        (``kd_lightning.data.augmentation``), from the stream (seed, name, rank, step).

        The stream has a new seed at each step, for which a compiled step would be compiled again: a
        method that calls this declares "compile" as unsupported.
        """
        stream = stream_seed(self.seed, name, self.global_rank, self._batches_started)
        return augmentation.seeded(x, stream)

    # A step

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        x, y, *rest = batch
        cached = rest[0] if rest else None
        self.prepare(x, cached)
        if not self.automatic_optimization:
            self._manual_step(x, y, cached)
            return None
        if self.compile_step is None and self.record_step is None:
            step = step_of(self.losses(x, y, cached, self.progress))
        else:
            step = self.compute_fast_step(x, y, cached)
        if step.statistics is not None:
            self.update_statistics(step.statistics)
        self.running_means.add(step.names, step.values, self.global_step)
        return step.loss

    def _manual_step(self, x: Tensor, y: Tensor, cached: Cached) -> None:
        self._steps.clear()
        self.optimizer_steps(x, y, cached, self.progress)
        names = tuple(chain.from_iterable(step.names for step in self._steps))
        values = torch.cat([step.values for step in self._steps])
        self.running_means.add(names, values, self.steps_done)
        if self.fit_trainer is not None and self.make_scheduler is not None:
            for scheduler in self.lr_schedulers():
                scheduler.step()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        stepped = self.steps_done != self._logged_at  # False while gradients accumulate
        if stepped and self.steps_done % self.trainer.log_every_n_steps == 0:
            self._logged_at = self.steps_done
            means = {f"train/{name}": v for name, v in self.running_means.read_interval().items()}
            optimizers = self.optimizers()
            for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
                means |= {f"lr/{group['name']}": group["lr"] for group in optimizer.param_groups}
            for logger in self.loggers:
                logger.log_metrics(means, step=self.steps_done)

    def on_train_epoch_end(self) -> None:
        for name, mean in self.running_means.read_epoch().items():
            self.log(f"train/{name}", mean, sync_dist=True)
        self.synchronize_students()

    # Frozen modules of the method

    def freeze_module(self, module: nn.Module) -> None:
        """A module of the method that learns no more: no gradient, always in eval mode."""
        self._frozen.append(module.requires_grad_(False).eval())

    def train(self, mode: bool = True) -> "Learner":
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    # Evaluation

    def on_validation_start(self) -> None:
        self.running_means.check_finite()
        self.synchronize_students()

    @torch.no_grad()
    def synchronize_students(self) -> None:
        """Before students are evaluated or saved: averages their batch-norm statistics over the
        ranks, each of which has seen its own share of the data.

        Raises:
            UserError: weights are not finite.
        """
        modules = {f"student {key}": net for key, net in self.students.items()}
        modules |= {
            f"the method's own modules ({name})": m for name, m in self.own_modules().items()
        }
        for whose, module in modules.items():
            if self.trainer.world_size > 1:
                self._average_statistics(module)
            values = [p.isfinite().all() for p in module.parameters()]
            if values and not torch.stack(values).all():
                raise UserError(
                    f"the weights of {whose} are not finite after step {self.steps_done}: "
                    "the run stops and keeps its last good checkpoint; lower optimizer.lr, or set "
                    "trainer.gradient_clip_val"
                )

    def _average_statistics(self, module: nn.Module) -> None:
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(self.trainer.strategy.reduce(buffer, reduce_op="mean"))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        for key, output in self(x).items():
            logits = output.logits.float()
            metrics = self.val_metrics[key]
            metrics["accuracy"].update(logits, y)
            metrics["ece"].update(logits, y)
            metrics["nll"].update(label_cross_entropy(logits, y))

    def on_validation_epoch_end(self) -> None:
        for key, metrics in self.val_metrics.items():
            for name, metric in metrics.items():
                self.log(f"val/{key}/{name}", metric.compute(), sync_dist=True)
                metric.reset()
        self.log_val_mean("accuracy")

    def log_val_mean(self, name: str) -> None:
        """Logs the mean over the students of a metric on val."""
        values = [self.trainer.callback_metrics[f"val/{key}/{name}"] for key in self.students]
        self.log(f"val/{name}", torch.stack(values).mean(), sync_dist=True)
