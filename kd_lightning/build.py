"""From a composed configuration to the things it names: data, method, trainer."""

import logging
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.callbacks.confidence import ConfidenceBins
from kd_lightning.callbacks.record import Record
from kd_lightning.callbacks.status import Status
from kd_lightning.data.classification import ClassificationData
from kd_lightning.errors import UserError, placed
from kd_lightning.jobs import current
from kd_lightning.methods.base import Distiller, Learner
from kd_lightning.models.frozen import freeze, lay_out
from kd_lightning.pruning import pruning_of
from kd_lightning.ranks import check_processes, is_first_rank
from kd_lightning.schema import arguments_of
from kd_lightning.teachers import Teacher, build_net
from kd_lightning.trackers.about import About, name_of
from kd_lightning.trackers.guard import Guard

# What Lightning says that is no news here, by the beginning of its text.
NO_NEWS = (
    r".*does not have many workers.*",  # data in memory are loaded fastest without
    r"The number of training batches \(\d+\) is smaller than the logging interval.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r"Checkpoint directory .* exists and is not empty.*",
    r".*You defined a `validation_step` but have no `val_dataloader`.*",
    r".*Total length of `.*` across ranks is zero.*",
    r".*torch.jit.script.*is (deprecated|not supported).*",
    r"The `srun` command is available on your system but is not used.*",
    r"`broadcast_buffers` is deprecated.*",  # its successor is not in torch 2.11
)


DEFAULT_THREADS = torch.get_num_threads()


def use_threads(threads: int | None) -> None:
    """Sets the CPU threads of this process; None: torch's own choice."""
    if threads is not None and threads < 1:
        raise UserError(f"threads must be >= 1 or null, got {threads}")
    torch.set_num_threads(threads or DEFAULT_THREADS)


def quieten() -> None:
    """Silences the messages of the libraries that tell a person nothing."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in NO_NEWS:
        warnings.filterwarnings("ignore", text)


def build_data(cfg: DictConfig) -> ClassificationData:
    """The data set, ready; what it says of itself is put into ``cfg.task``.

    Raises:
        UserError: ``cfg.task`` states something else.
    """
    data = instantiate(cfg.data, _convert_="object")
    data.prepare_data()
    data.setup()
    x = data.parts["train"].x
    shape = x.shape[1:] if torch.is_tensor(x) else (data.channels, data.size, data.size)
    facts = {
        "num_classes": data.num_classes,
        "channels": data.channels,
        "size": data.size,
        "shape": list(shape),
        "num_inputs": torch.Size(shape).numel(),
        "mean": [round(value, 6) for value in data.mean],
        "std": [round(value, 6) for value in data.std],
        "imagenet_rows": data.imagenet_rows,
    }
    for key, fact in facts.items():
        stated = cfg.task.get(key)  # a resumed run may be older than the fact
        if stated is not None and stated != fact:
            raise UserError(f"task.{key}={stated} does not agree with the data, which have {fact}")
        cfg.task[key] = fact
    return data


def build_method(cfg: DictConfig, teacher: Teacher | None) -> Learner:
    """The LightningModule with its nets, optimizer and schedule."""
    nets: dict[str, Any] = {
        "students": {
            key: build_net(config, cfg.seed, key) for key, config in cfg.method.students.items()
        }
    }
    if teacher is not None:
        nets["teacher"] = teacher.net
        check_net(teacher.net, cfg.task, "method.teacher")
    for key, net in nets["students"].items():
        check_net(net, cfg.task, f"method.students.{key}")
    if cfg.hardware.channels_last:
        named = {f"method.students.{key}": net for key, net in nets["students"].items()}
        if teacher is not None:
            named["method.teacher"] = teacher.net
        for key, net in named.items():
            check_layout(net, cfg.task, key)
    config = OmegaConf.masked_copy(
        cfg.method, [key for key in cfg.method if key not in ("students", "teacher")]
    )
    config._set_parent(cfg)  # its interpolations point to the whole configuration
    method = instantiate(config, _partial_=True, _convert_="object")(
        **nets,
        optimizer=instantiate(cfg.optimizer, _convert_="object"),
        scheduler=instantiate(cfg.scheduler, _convert_="object"),
    )
    if method.num_classes != cfg.task.num_classes:
        raise UserError(
            f"method.num_classes must be the data's {cfg.task.num_classes}, "
            f"got {method.num_classes}"
        )
    if isinstance(method, Distiller):
        method.freeze = partial(
            freeze,
            precision=teacher_precision(cfg.hardware),
            channels_last=cfg.hardware.channels_last,
            compiled=cfg.hardware.compile_teacher,
        )
    return method


def teacher_precision(hardware: DictConfig) -> str:
    """What a teacher computes in: what is asked for, or what the run does."""
    asked = hardware.teacher_precision
    return str(hardware.precision).split("-")[0] if asked is None else str(asked)


def check_layout(net: nn.Module, task: DictConfig, key: str) -> None:
    """Lets the net's weights lie channels last.

    Raises:
        UserError: it does not bear that.
    """
    lay_out(net)
    try:
        check_net(net, task, key)
    except UserError as error:
        raise UserError(
            f"{key} takes samples, but not with channels last in memory (a view where reshape "
            "would do?): set hardware.channels_last=false"
        ) from error


def check_net(net: nn.Module, task: DictConfig, key: str) -> None:
    """Shows a net one sample of zeros, for it is now that it can still be changed.

    Raises:
        UserError: it does not take such samples, or answers with another number of classes.
    """
    x = torch.zeros(2, *task.shape)
    training = net.training
    try:
        with torch.no_grad():
            num_classes = net.eval()(x).logits.shape[1]
    except UserError as error:
        raise UserError(placed(str(error), key)) from error
    except RuntimeError as error:
        raise UserError(
            f"{key} must take samples of shape {tuple(x.shape[1:])}, and it does not: choose "
            f"another net (model@{key}=…)"
        ) from error
    net.train(training)
    if num_classes != task.num_classes:
        raise UserError(
            f"{key} must have the data's {task.num_classes} classes, it has {num_classes}: choose "
            "another net, or weights that were learnt on these classes"
        )


def describe_run(directory: Path, overrides: Sequence[str], method: str, data: str) -> About:
    """What trackers are told of a run: by itself, or as a job of a sweep."""
    job = current()
    if job is None:
        return About(name_of({}, overrides, directory), None, method, (data,))
    order = job.order
    return About(name_of(order.axes, overrides, directory), order.sweep, method, (data,))


def build_trainer(
    cfg: DictConfig, directory: Path, title: str, about: About, *callbacks: Callback
) -> Trainer:
    """Lightning's Trainer for ``cfg.trainer`` on ``cfg.hardware``, recording into ``directory``."""
    facts = {
        "save_dir": str(directory),
        "title": title,
        "about": about,
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    extra = [build_with(node, facts) for node in cfg.callbacks.values() if node is not None]
    if (job := current()) is not None:
        extra.append(Status(title, job.report))
        # by the configuration, which every rank has, and not by the directory, which only one has
        own = cfg.resume or cfg.run_dir
        is_its_own = own is not None and Path(own).resolve() == job.directory.resolve()
        if is_its_own and (search := job.order.search) is not None:
            extra.append(pruning_of(job, search))
    return bare_trainer(
        cfg,
        logger=[
            Guard(key, partial(build_with, node, facts) if is_first_rank() else None)
            for key, node in cfg.logger.items()
        ],
        callbacks=[*extra, *callbacks, ConfidenceBins(directory), Record(directory)],
        default_root_dir=directory,
    )


def build_with(node: DictConfig, facts: dict[str, Any]) -> Any:
    """What ``node`` names, given those of ``facts`` that it takes."""
    known = arguments_of(get_object(node._target_)).known
    given = {name: fact for name, fact in facts.items() if name in known}
    return instantiate(node, _partial_=True)(**given)


def strategy_for(hardware: DictConfig, on_gpu: bool) -> Strategy | str:
    """DDP for more than one device, else what Lightning chooses.

    Buffers are not broadcast: ranks may evaluate different numbers of batches, and batch-norm
    statistics are averaged once an epoch instead (``Learner``).
    """
    if count_processes(hardware, on_gpu) > 1:
        return DDPStrategy(broadcast_buffers=False)
    return "auto"


def count_processes(hardware: DictConfig, on_gpu: bool) -> int:
    """One for each device of all machines."""
    devices = hardware.devices
    if OmegaConf.is_list(devices):
        devices = len(devices)
    elif devices in (-1, "auto"):
        devices = torch.cuda.device_count() if on_gpu else 1
    return int(devices) * hardware.num_nodes


def bare_trainer(cfg: DictConfig, **record: Any) -> Trainer:
    """Lightning's Trainer, to which ``record`` adds what it writes and shows.

    Raises:
        UserError: a precision or device that this machine or this framework does not have.
    """
    precision, accelerator = str(cfg.hardware.precision), cfg.hardware.accelerator
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if precision not in ("32", "bf16-mixed", "16-mixed"):
        raise UserError(f"hardware.precision must be 32, bf16-mixed or 16-mixed, got {precision}")
    if precision == "16-mixed" and not on_gpu:
        raise UserError("hardware.precision=16-mixed needs a GPU: on a CPU use bf16-mixed or 32")
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError("hardware.accelerator=gpu, and there is no GPU: use hardware=cpu")
    check_processes(count_processes(cfg.hardware, on_gpu), cfg.hardware.num_nodes)
    trainer = Trainer(
        **OmegaConf.to_container(cfg.trainer, resolve=True),
        accelerator=accelerator,
        devices=cfg.hardware.devices,
        num_nodes=cfg.hardware.num_nodes,
        precision=precision,
        strategy=strategy_for(cfg.hardware, on_gpu),
        use_distributed_sampler=False,  # the data modules deal out samples themselves
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        **record,
    )
    if cfg.data.batch_size % trainer.world_size:
        raise UserError(
            f"data.batch_size={cfg.data.batch_size} is global and must divide over "
            f"{trainer.world_size} devices (hardware.devices=…)"
        )
    return trainer
