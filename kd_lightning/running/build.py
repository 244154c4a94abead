"""Builds the data and the method that a configuration names."""

import logging
import warnings
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.base.errors import UserError, with_full_keys
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.channel_statistics import rounded_statistics
from kd_lightning.data.loading.image_files import ImageFiles
from kd_lightning.methods.base import Learner
from kd_lightning.methods.distiller import Distiller
from kd_lightning.methods.recorded_step import RecordedStep
from kd_lightning.methods.step import CompiledStep
from kd_lightning.models.by_shape import choose_nets
from kd_lightning.models.inference import checked_fast_copy, teacher_precision, to_channels_last
from kd_lightning.models.outputs import ModelOutput
from kd_lightning.running.compile_trial import check_trial
from kd_lightning.running.support import check_support
from kd_lightning.running.trainer import count_processes
from kd_lightning.running.unlabeled import add_unlabeled
from kd_lightning.teachers.input_facts import keep_given_statistics
from kd_lightning.teachers.own_run import branch_factory, name_branch_net
from kd_lightning.teachers.sources import Teacher, build_net

# Warnings of the libraries that tell a person nothing here, by the beginning of their text.
IGNORED_WARNINGS = (
    r"This DataLoader will create \d+ worker processes in total.*",  # the user's own choice
    r".*does not have many workers.*",  # data in memory load fastest without workers
    r"The number of training batches \(\d+\) is smaller than the logging interval.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r"Checkpoint directory .* exists and is not empty.*",
    r".*You defined a `validation_step` but have no `val_dataloader`.*",
    r".*Total length of `.*` across ranks is zero.*",
    r".*torch.jit.script.*is (deprecated|not supported).*",
    r"The `srun` command is available on your system but is not used.*",
    r"Found \d+ module\(s\) in eval mode at the start of training.*",  # a method's frozen modules
    r".*`LightningModule.configure_optimizers` returned `None`.*",  # a stage that only computes
    r"`broadcast_buffers` is deprecated.*",  # its successor is not in torch 2.11
    r"TensorFloat32 tensor cores for float32 matrix multiplication available.*",
    r"GPU available but not used.*",  # hardware=cpu
    r"\s*Online softmax is disabled on the fly.*",  # a compiled step with few classes
    r"Grad strides do not match bucket view strides.*",  # of layers with one channel a group
    r"The AccumulateGrad node's stream does not match.*",  # Lightning wraps DDP on a side stream
)
# Python loggers -> the lowest level that is shown.
LOG_LEVELS = {
    "lightning.pytorch": logging.WARNING,
    "lightning.fabric": logging.WARNING,
    "torch.utils.cpp_extension": logging.ERROR,  # where CUDA is installed and there is no GPU
}


def quieten() -> None:
    """Silences the messages of the libraries that tell a person nothing."""
    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    for text in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", text)


def build_data(cfg: DictConfig) -> ClassificationData:
    """The data set, ready to use; its number of classes, shape and so on go into ``cfg.task``, and
    nets that depend on the shape are chosen.

    Raises:
        UserError: ``cfg.task`` states another value.
    """
    data = instantiate(cfg.data, _convert_="object")
    data.prepare_data()
    data.setup()
    if isinstance(data, ImageFiles) and "exif" in cfg.data:
        cfg.data.exif = data.exif  # null is the value of preparation, which results depend on
    x = data.parts["train"].x
    shape = x.shape[1:] if torch.is_tensor(x) else (data.channels, data.size, data.size)
    mean, std = rounded_statistics(data.mean, data.std)
    facts = {
        "num_classes": data.num_classes,
        "channels": data.channels,
        "size": data.size,
        "shape": list(shape),
        "num_inputs": torch.Size(shape).numel(),
        "mean": mean,
        "std": std,
        "imagenet_rows": data.imagenet_rows,
    }
    for key, fact in facts.items():
        stated = cfg.task.get(key)  # a resumed run may be older than the fact
        if stated is not None and stated != fact:
            raise UserError(f"task.{key}={stated} does not agree with the data, which have {fact}")
        cfg.task[key] = fact
    add_unlabeled(data, shape)
    for method in (cfg.method, cfg.teacher.method):
        choose_nets(method, shape)
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
        keep_given_statistics(teacher.net, cfg.method.teacher, cfg.task)
        check_net(teacher.net, cfg.task, "method.teacher")
    name_branch_net(cfg.method, cfg.method.students)
    if "branch_net" in cfg.method:
        nets["branch_net"] = branch_factory(cfg.method.branch_net)
    for key, net in nets["students"].items():
        keep_given_statistics(net, cfg.method.students[key], cfg.task)
        check_net(net, cfg.task, f"method.students.{key}")
    if cfg.hardware.channels_last:
        named = {f"method.students.{key}": net for key, net in nets["students"].items()}
        if teacher is not None:
            named["method.teacher"] = teacher.net
        for key, net in named.items():
            check_layout(net, cfg.task, key)
    config = OmegaConf.masked_copy(
        cfg.method, [key for key in cfg.method if key not in ("students", "teacher", "branch_net")]
    )
    config._set_parent(cfg)  # its interpolations point to the whole configuration
    method = bare(instantiate(config, _partial_=True, _convert_="object"))(
        **nets,
        optimizer=instantiate(cfg.optimizer, _convert_="object"),
        scheduler=instantiate(cfg.scheduler, _convert_="object"),
    )
    if method.num_classes != cfg.task.num_classes:
        raise UserError(
            f"method.num_classes must be the data's {cfg.task.num_classes}, "
            f"got {method.num_classes}"
        )
    check_support(cfg, method)
    check_trial(cfg)
    method.compile_step = CompiledStep if cfg.hardware.compile is True else None
    method.record_step = RecordedStep if should_record_steps(cfg) else None
    if isinstance(method, Distiller):
        method.make_fast = partial(
            checked_fast_copy,
            precision=teacher_precision(cfg.hardware.precision, cfg.hardware.teacher_precision),
            channels_last=cfg.hardware.channels_last,
            compiled=cfg.hardware.compile_teacher,
        )
    return method


def number_samples(data: ClassificationData, method: Learner) -> None:
    """Gives a method that needs it the labels of all training samples, and its batches the index of
    each sample among them.
    """
    if method.needs_indices:
        data.sample_indices = True
        method.use_labels(data.parts["train"].y)


def bare(value: Any) -> Any:
    """A plain Python partial. Hydra's makes hundreds of Python calls each time to check what it
    calls, and a method calls its confidence, guidance or loss in every step.
    """
    if not isinstance(value, partial):
        return value
    given = {name: bare(one) for name, one in value.keywords.items()}
    return partial(bare(value.func), *map(bare, value.args), **given)


def should_record_steps(cfg: DictConfig) -> bool:
    """Whether a GPU replays recorded steps, ``hardware.cuda_graphs``.

    Raises:
        UserError: this device or these trainer options do not support it.
    """
    if not cfg.hardware.cuda_graphs:
        return False
    accelerator = cfg.hardware.accelerator
    is_cuda = accelerator in ("gpu", "cuda")  # where there is none, the Trainer says so
    if not (is_cuda or (accelerator == "auto" and torch.cuda.is_available())):
        raise UserError(
            f"hardware.cuda_graphs=true needs a GPU, got hardware.accelerator={accelerator} and no "
            "CUDA device: set hardware.cuda_graphs=false"
        )
    if cfg.trainer.get("accumulate_grad_batches", 1) > 1:
        raise UserError(
            "with hardware.cuda_graphs=true each batch has gradients of its own, and "
            f"trainer.accumulate_grad_batches={cfg.trainer.accumulate_grad_batches} adds up "
            "several: set one of the two back"
        )
    if count_processes(cfg.hardware, on_gpu=True) > 1:
        raise UserError(
            "hardware.cuda_graphs=true is for one GPU, and gradients of several are averaged "
            "outside of a recorded step: set hardware.cuda_graphs=false or hardware.devices=1"
        )
    return True


def check_layout(net: nn.Module, task: DictConfig, key: str) -> None:
    """Stores the net's weights channels last.

    Raises:
        UserError: the net does not work with that.
    """
    to_channels_last(net)
    try:
        check_net(net, task, key)
    except UserError as error:
        raise UserError(
            f"{key} takes samples, but not with channels last in memory (a view where reshape "
            "would do?): set hardware.channels_last=false"
        ) from error


def check_net(net: nn.Module, task: DictConfig, key: str) -> None:
    """Runs a net on zeros, before anything is trained.

    Raises:
        UserError: it does not take such samples, or has another number of classes.
    """
    x = torch.zeros(2, *task.shape)
    training = net.training
    try:
        with torch.no_grad():
            output = net.eval()(x)
    except UserError as error:
        raise UserError(with_full_keys(str(error), key)) from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise UserError(
            f"{key} must take samples of shape {tuple(x.shape[1:])}, and it does not ({reason}): "
            f"choose another net (model@{key}=…)"
        ) from error
    net.train(training)
    if not isinstance(output, ModelOutput):
        raise UserError(
            f"{key} must return ModelOutput(logits, features), as a Classifier does, got "
            f"{type(output).__name__}: make it of a trunk and a head (model@{key}=…)"
        )
    num_classes = output.logits.shape[1]
    if num_classes != task.num_classes:
        raise UserError(
            f"{key} must have the data's {task.num_classes} classes, it has {num_classes}: leave "
            f"its num_classes to the data ({key}.num_classes=…), or choose another net "
            f"(model@{key}=…)"
        )
