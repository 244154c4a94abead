"""What every method shares: students, a frozen teacher, optimizer, metrics, logging.

A method adds its constructor and ``losses``, which reads like the paper's algorithm. Names that
are logged: ``train/<student>/<term>``, ``val/<student>/accuracy|nll|ece`` and their mean over
the students, ``val/accuracy``.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import seed_stream
from kd_lightning.losses.cross_entropy import label_cross_entropy
from kd_lightning.methods.running_means import RunningMeans
from kd_lightning.methods.step import Known, Losses, Step, step_of
from kd_lightning.models.outputs import ModelOutput
from kd_lightning.uncertainty.calibration import CalibrationError

# The rows of a run's table, and what is logged of a whole run, that no student may be named after.
OTHER_NETS = ("teacher", "ensemble", "vote", "uniform_soup", "greedy_soup")
OTHER_METRICS = ("agreement", "confidence", "guidance", "weight", "accuracy")


class Learner(LightningModule):
    """Trains students, one or more, on the same batches.

    Args:
        students: role ("student"; "a", "b") -> net.
        num_classes: of the data.
        optimizer: parameter groups -> optimizer; one group per student.
        scheduler: (optimizer, total steps) -> scheduler, stepped once a batch; None: constant.
        learning_rates: role -> its own learning rate, where it differs from the optimizer's.
        seed: of the dropout streams.

    Attributes:
        compile_step: step -> a function that does the same, faster; None: it runs as it is.
    """

    can_be_compiled = True  # False: ``losses`` does what no compiler follows

    def __init__(
        self,
        *,
        students: Mapping[str, nn.Module],
        num_classes: int,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        learning_rates: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not students:
            raise UserError("a method needs a student (model@method.students.student=…)")
        taken = (*OTHER_NETS, *OTHER_METRICS)
        if odd := [k for k in students if not k.isidentifier() or k in taken]:
            raise UserError(
                f"a student's key is a short name such as a or b, got '{odd[0]}' (method.students)"
            )
        if odd := sorted(set(learning_rates or {}) - set(students)):
            raise UserError(
                f"method.learning_rates names '{odd[0]}', the students are {', '.join(students)}"
            )
        for key, rate in (learning_rates or {}).items():
            if not rate > 0:
                raise UserError(f"method.learning_rates.{key} must be > 0, got {rate}")
        self.students = nn.ModuleDict(students)
        self.num_classes = num_classes
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.learning_rates = dict(learning_rates or {})
        self.seed = seed
        self.running_means = RunningMeans()
        self._read_at = 0
        self.compile_step: Callable[[Callable[..., Step]], Callable[..., Step]] | None = None
        self._compiled: Callable[..., Step] | None = None
        self.val_metrics = nn.ModuleDict({key: self._new_metrics() for key in students})

    def _new_metrics(self) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                "accuracy": MulticlassAccuracy(self.num_classes, average="micro"),
                "ece": CalibrationError(),
                "nll": MeanMetric(nan_strategy="disable"),
            }
        )

    # The students

    def forward(self, x: Tensor) -> dict[str, ModelOutput]:
        """Every student's answer. While training, each student draws from dropout streams of its
        own, so that adding one changes nothing for the others.
        """
        return {key: self.forward_student(key, x) for key in self.students}

    def forward_student(self, key: str, x: Tensor) -> ModelOutput:
        if self.training:
            self.seed_step_stream("dropout", key)
        return self.students[key](x)

    def seed_step_stream(self, *name: str) -> None:
        """Puts the default generators at the start of the stream (seed, name, rank, step).

        Inside a compiled step nothing happens: there is one stream for all of it.
        """
        if torch.compiler.is_compiling():
            return
        seed_stream(self.seed, *name, self.global_rank, self._batches_seen, device=self.device)

    @property
    def _batches_seen(self) -> int:
        # not global_step: that stands still while gradients accumulate
        loop = self._trainer and self.trainer.fit_loop.epoch_loop
        return loop.batch_progress.total.ready if loop else 0

    @property
    def progress(self) -> float:
        """Share of the run's optimizer steps that are done, in [0, 1]; 1 outside a run."""
        if self._trainer is None:
            return 1.0
        return min(1.0, self.global_step / max(1, self.trainer.estimated_stepping_batches))

    # A step

    @abstractmethod
    def losses(self, x: Tensor, y: Tensor, known: Known, progress: float | Tensor) -> Losses:
        """What students, and a teacher, make of a batch. Keeps nothing: it may be compiled.

        Args:
            x: (B, C, *size).
            y: (B,) classes, or (B, C) shares of classes where samples are mixed.
            known: of the teacher's answers, from a cache.
            progress: as the attribute, or a scalar where a compiled step would begin anew with
                every other number.
        """

    def make_ready(self, x: Tensor, known: Known) -> None:
        """Before a step: what has to look at the first batch does so here."""

    def note(self, seen: Any) -> None:
        """After a step: counts what ``losses`` has seen."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y, *rest = batch
        known = rest[0] if rest else None
        self.make_ready(x, known)
        if self.compile_step is None:
            step = step_of(self.losses(x, y, known, self.progress))
        else:
            self._compiled = self._compiled or self.compile_step(self._step)
            self.seed_step_stream("dropout")  # one stream: no graph begins another in its middle
            progress = torch.full((), self.progress, device=x.device)
            step = self._compiled(x, y, known, progress)
        if step.seen is not None:
            self.note(step.seen)
        self.running_means.add(step.names, step.values, self.global_step)
        return step.loss

    def _step(self, *batch: Any) -> Step:
        return step_of(self.losses(*batch))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        stepped = self.global_step != self._read_at  # not while gradients accumulate
        if stepped and self.global_step % self.trainer.log_every_n_steps == 0:
            self._read_at = self.global_step
            means = {f"train/{name}": v for name, v in self.running_means.read_interval().items()}
            for group in self.optimizers().param_groups:
                means[f"lr/{group['name']}"] = group["lr"]
            for logger in self.loggers:
                logger.log_metrics(means, step=self.global_step)

    def on_train_epoch_end(self) -> None:
        means = self.running_means.read_epoch()
        for name, mean in means.items():
            self.log(f"train/{name}", mean, sync_dist=True)
        self.make_students_whole()

    # Evaluation

    def on_validation_start(self) -> None:
        self.running_means.check_finite()
        self.make_students_whole()

    @torch.no_grad()
    def make_students_whole(self) -> None:
        """Before students are evaluated or saved: one set of batch-norm statistics, and no NaN.

        Each rank's statistics are of its own share of the data; they are averaged.
        """
        for module in self.students.modules():
            if self.trainer.world_size > 1 and isinstance(module, _NormBase):
                for name in ("running_mean", "running_var"):
                    buffer = getattr(module, name)
                    if buffer is not None:
                        buffer.copy_(self.trainer.strategy.reduce(buffer, reduce_op="mean"))
        for key, student in self.students.items():
            finite = torch.stack([p.isfinite().all() for p in student.parameters()]).all()
            if not finite:
                raise UserError(
                    f"the weights of student {key} are not finite after step {self.global_step}: "
                    "the run stops and keeps its last good checkpoint; lower optimizer.lr, or set "
                    "trainer.gradient_clip_val"
                )

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
        accuracies = [self.trainer.callback_metrics[f"val/{key}/accuracy"] for key in self.students]
        self.log("val/accuracy", torch.stack(accuracies).mean(), sync_dist=True)

    # Optimization

    def parameters_of(self, key: str) -> Iterator[nn.Parameter]:
        """What learns with a student: its weights, to which a method may add some of its own."""
        return self.students[key].parameters()

    def configure_optimizers(self) -> Any:
        groups = []
        for key in self.students:
            learnt = [p for p in self.parameters_of(key) if p.requires_grad]
            group = {"params": learnt, "name": key}
            if key in self.learning_rates:
                group["lr"] = self.learning_rates[key]
            groups.append(group)
        optimizer = self.make_optimizer(groups)
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips each student by itself: one norm over all would let them shrink each other."""
        if not gradient_clip_val:
            return
        clip = clip_grad_value_ if gradient_clip_algorithm == "value" else clip_grad_norm_
        for group in optimizer.param_groups:
            clip(group["params"], gradient_clip_val)
