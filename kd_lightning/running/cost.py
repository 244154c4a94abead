"""What a run will cost, by a few of its steps: ``python -m kd_lightning.run --plan …``.

Nothing of the run is done: the teacher has random weights, and no file is written.
"""

import math
import resource
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kd_lightning.base.threads import use_threads
from kd_lightning.data.classification import ClassificationData
from kd_lightning.methods.base import Learner
from kd_lightning.models.ensemble import Ensemble
from kd_lightning.running.build import build_data, build_method, number_samples
from kd_lightning.running.preflight import check_run
from kd_lightning.running.stages import end_stage, take_length
from kd_lightning.running.trainer import bare_trainer, count_processes
from kd_lightning.teachers.net_names import describe
from kd_lightning.teachers.own_run import first_of, one_device, sources_of
from kd_lightning.teachers.sources import Teacher, build_net

WARM_UP, MEASURED = 4, 12  # steps; the first ones compile, and fill caches and queues of batches
VAL_BATCHES = 4


@dataclass(frozen=True)
class Cost:
    """What one training costs: of a run, or of a stage before it.

    Attributes:
        title: what is trained.
        epochs: passes over the training samples.
        steps: batches, on each device.
        step: seconds from one batch to the next.
        waiting: share of ``step`` in which the device waits for data.
        seconds: of the whole, with validation and test.
        memory: largest number of bytes: on a GPU, of its memory; on a CPU, of the process so far.
        disk: bytes of checkpoints and of the students' files.
    """

    title: str
    epochs: float
    steps: int
    step: float
    waiting: float
    seconds: float
    memory: int
    disk: int


def measure(cfg: DictConfig) -> list[Cost]:
    """The costs of the stages and of the training of a run, with the training last.

    A run on several devices is measured on one, with that device's share of the batch.

    Raises:
        UserError: the run could not start.
    """
    use_threads(cfg.threads)
    data = build_data(cfg)
    one = cfg.copy()
    one.hardware.num_nodes = 1  # whatever starts the processes of several machines is not here
    check_run(one, data)
    take_length(cfg, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an untrained teacher is what methods warn about
        method = build_method(cfg, stand_in(cfg))
        number_samples(data, method)
        return [*_costs_of_stages(cfg, data, method), _cost_of_training(cfg, data, method)]


def stand_in(cfg: DictConfig) -> Teacher | None:
    """The teacher's net with random weights: a step takes as long as with trained ones."""
    if "teacher" not in cfg.method:
        return None
    config = cfg.method.teacher.copy()
    config._set_parent(cfg.method)
    if "weights" in config:
        config.weights = "none"
    nets = [build_net(config, cfg.teacher.seed, "teacher") for _ in sources_of(cfg)]
    net = nets[0] if len(nets) == 1 else Ensemble(nets)
    return Teacher(net, "untrained", describe(config))


def _costs_of_stages(cfg: DictConfig, data: ClassificationData, method: Learner) -> Iterator[Cost]:
    run = one_device(cfg.copy())
    for stage in method.stages():
        run.trainer = {"max_epochs": stage.max_epochs}
        yield _cost_of(run, f"stage {stage.name}", data, stage, processes=1)
        end_stage(method, stage)


def _cost_of_training(cfg: DictConfig, data: ClassificationData, method: Learner) -> Cost:
    on_gpu = cfg.hardware.accelerator != "cpu" and torch.cuda.is_available()
    processes = count_processes(cfg.hardware, on_gpu)
    run = cfg.copy()
    run.hardware.update(devices=first_of(cfg.hardware.devices), num_nodes=1)
    data.batch_size = max(1, data.batch_size // processes)
    if (more := data.unlabeled_samples) is not None:
        data.unlabeled_samples = replace(more, count=max(1, more.count // processes))
    return _cost_of(run, "students", data, method, processes=processes)


def _cost_of(
    cfg: DictConfig,
    title: str,
    data: ClassificationData,
    module: LightningModule,
    *,
    processes: int,
) -> Cost:
    """Fits a module for a few steps.

    Args:
        processes: that share the samples.
    """
    per_epoch = limited(
        len(data.parts["train"]) // processes // data.batch_size,
        cfg.trainer.get("limit_train_batches"),
    )
    epochs, steps = length_of(cfg.trainer, per_epoch)
    clock, short = Clock(), cfg.copy()
    OmegaConf.set_struct(short, False)
    short.trainer.update(
        max_epochs=math.ceil((WARM_UP + MEASURED) / per_epoch), max_steps=-1, min_epochs=None,
        min_steps=None, max_time=None, limit_train_batches=min(per_epoch, WARM_UP + MEASURED),
        limit_val_batches=VAL_BATCHES, check_val_every_n_epoch=1, val_check_interval=1.0,
    )  # fmt: skip
    trainer = bare_trainer(short, logger=False, enable_checkpointing=False, callbacks=[clock])
    device = trainer.strategy.root_device
    forget_peak(device)
    if isinstance(module, Learner):
        trainer.fit(module, datamodule=data)
    else:
        trainer.fit(module, data.loader("train", device=device))
    val, test = (math.ceil(len(data.parts[part] or ()) / processes) for part in ("val", "test"))
    evaluated = epochs / (cfg.trainer.get("check_val_every_n_epoch") or 1) * val
    if isinstance(module, Learner):
        evaluated += test * processes  # one process tests
    return Cost(
        title, epochs, steps, clock.step, clock.waiting,
        clock.start_up + steps * clock.step + evaluated * clock.seconds_of_val / data.batch_size,
        peak_memory(device), disk_of(module),
    )  # fmt: skip


def limited(batches: int, limit: float | None) -> int:
    """The batches of an epoch under ``trainer.limit_train_batches``."""
    if limit is None:
        return max(1, batches)
    return max(1, min(batches, limit) if isinstance(limit, int) else int(batches * limit))


def length_of(trainer: DictConfig, per_epoch: int) -> tuple[float, int]:
    """The epochs and the batches of a whole training."""
    accumulated = trainer.get("accumulate_grad_batches") or 1
    most = trainer.get("max_steps") or -1
    epochs = trainer.get("max_epochs")
    limits = [most * accumulated] if most > 0 else []
    if epochs is not None and epochs >= 0:
        limits.append(epochs * per_epoch)
    steps = min(limits)
    return steps / per_epoch, steps


class Clock(Callback):
    """Measures the steps of a short fit.

    Attributes:
        times: for each epoch, the start and the end of each step, in seconds.
        seconds_of_val: of one batch of validation; 0 if there is none.
    """

    def __init__(self) -> None:
        self.times: list[list[tuple[float, float]]] = []
        self._val_seconds, self._val_batches = 0.0, 0

    def on_train_epoch_start(self, *arguments: Any) -> None:
        self.times.append([])

    def on_train_batch_start(self, *arguments: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.times[-1].append((self._start, now()))

    def on_validation_start(self, *arguments: Any) -> None:
        self._start = now()

    def on_validation_batch_end(self, *arguments: Any) -> None:
        self._val_batches += 1

    def on_validation_end(self, *arguments: Any) -> None:
        self._val_seconds += now() - self._start

    @property
    def seconds_of_val(self) -> float:
        return self._val_seconds / max(1, self._val_batches)

    @property
    def step(self) -> float:
        """Seconds from one step to the next: mean, because batches may come in bursts."""
        return sum(whole for whole, _ in self._measured) / len(self._measured)

    @property
    def waiting(self) -> float:
        """Share of the time between two steps that no step uses."""
        computing = sum(own for _, own in self._measured) / len(self._measured)
        return max(0.0, 1 - computing / self.step)

    @property
    def start_up(self) -> float:
        """Seconds that the first step takes longer than the others."""
        start, end = self.times[0][0]
        return max(0.0, end - start - self.step)

    @property
    def _measured(self) -> list[tuple[float, float]]:
        """Of each step after the first ones: seconds since the one before, and its own."""
        found = []
        for epoch in self.times:
            # between epochs are other things than loading, such as validation
            before = [epoch[0][0], *(end for _, end in epoch[:-1])]
            both = zip(before, epoch, strict=True)
            found += [(end - last, end - start) for last, (start, end) in both]
        return found[WARM_UP:]


def now() -> float:
    """Seconds, after the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def forget_peak(device: torch.device) -> None:
    """From now on ``peak_memory`` is that of what comes, on a GPU."""
    if device.type == "cuda":
        torch.cuda.init()  # else there are no statistics to reset
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU of its memory, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def disk_of(module: LightningModule) -> int:
    """Bytes of two generations of checkpoints, and of the students' best weights and files."""
    kept = bytes_of(module.state_dict())
    optimizers = module.trainer.optimizers
    of_optimizers = sum(bytes_of(state) for one in optimizers for state in one.state.values())
    students = bytes_of(module.students.state_dict()) if isinstance(module, Learner) else 0
    return 2 * (kept + of_optimizers) + 2 * students


def bytes_of(values: Mapping[str, Any]) -> int:
    return sum(value.nbytes for value in values.values() if isinstance(value, Tensor))
