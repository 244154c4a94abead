"""From a composed configuration to the things it names: data, method, trainer."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf

from kd_lightning.callbacks.record import Record
from kd_lightning.data.classification import ClassificationData
from kd_lightning.errors import UserError
from kd_lightning.methods.base import Learner
from kd_lightning.teachers import Teacher, build_net

# What Lightning says that is no news here, by the beginning of its text.
NO_NEWS = (
    r".*does not have many workers.*",  # data in memory are loaded fastest without
    r"The number of training batches \(\d+\) is smaller than the logging interval.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r"Checkpoint directory .* exists and is not empty.*",
    r".*You defined a `validation_step` but have no `val_dataloader`.*",
    r".*Total length of `.*` across ranks is zero.*",
    r".*torch.jit.script.*is (deprecated|not supported).*",
)


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
        "num_inputs": torch.Size(shape).numel(),
        "mean": [round(value, 6) for value in data.mean],
        "std": [round(value, 6) for value in data.std],
        "imagenet_rows": data.imagenet_rows,
    }
    for key, fact in facts.items():
        stated = cfg.task[key]
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
    config = OmegaConf.masked_copy(
        cfg.method, [key for key in cfg.method if key not in ("students", "teacher")]
    )
    config._set_parent(cfg)  # its interpolations point to the whole configuration
    return instantiate(config, _partial_=True, _convert_="object")(
        **nets,
        optimizer=instantiate(cfg.optimizer, _convert_="object"),
        scheduler=instantiate(cfg.scheduler, _convert_="object"),
    )


def build_trainer(cfg: DictConfig, directory: Path, title: str, *callbacks: Callback) -> Trainer:
    """Lightning's Trainer for ``cfg.trainer`` on ``cfg.hardware``, recording into ``directory``.

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
    loggers = [instantiate(node, save_dir=str(directory)) for node in cfg.logger.values()]
    extra = [
        instantiate(node, **({"title": title} if "progress" in node._target_ else {}))
        for node in cfg.callbacks.values()
    ]
    trainer = Trainer(
        **OmegaConf.to_container(cfg.trainer, resolve=True),
        accelerator=accelerator,
        devices=cfg.hardware.devices,
        num_nodes=cfg.hardware.num_nodes,
        precision=precision,
        strategy=instantiate(cfg.hardware.strategy)
        if OmegaConf.is_config(cfg.hardware.strategy)
        else cfg.hardware.strategy,
        logger=loggers,
        callbacks=[*extra, *callbacks, Record(directory)],
        default_root_dir=directory,
        use_distributed_sampler=False,  # the data modules deal out samples themselves
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if cfg.data.batch_size % trainer.world_size:
        raise UserError(
            f"data.batch_size={cfg.data.batch_size} is global and must divide over "
            f"{trainer.world_size} devices (hardware.devices=…)"
        )
    return trainer
