"""Makes or finds the teacher that a run needs. A run never distils from an untrained net."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.data.classification import ClassificationData
from kd_lightning.environment import classes_sha256
from kd_lightning.errors import UserError
from kd_lightning.models.weights import load_weights
from kd_lightning.store import find_or_train
from kd_lightning.streams import seed_stream

SUPERVISED = "kd_lightning.methods.supervised.Supervised"


@dataclass(frozen=True)
class Teacher:
    """A trained net, and where it comes from, in words."""

    net: nn.Module
    origin: str


def build_net(config: DictConfig, seed: int, key: str) -> nn.Module:
    """The net that ``config`` names; its initial weights follow from (seed, key) alone."""
    seed_stream(seed, "initial weights", key)
    return instantiate(config, _convert_="object")


def get_teacher(
    cfg: DictConfig,
    data: ClassificationData,
    *,
    train: Callable[[DictConfig], Any],
    say: Callable[[str], None],
) -> Teacher:
    """The teacher that ``cfg.teacher.source`` names, trained first if it must be.

    Raises:
        UserError: the source does not exist, cannot be read, or has other classes than the data.
    """
    source = str(cfg.teacher.source)
    if source == "train":
        directory = find_or_train(
            teacher_run(cfg),
            Path(cfg.teacher.store),
            f"teacher-{factory(cfg.method.teacher)}",
            data.fingerprint,
            train=train,
            say=say,
        )
        return Teacher(load_student(directory, "student"), f"trained, {directory}")
    if source == "pretrained":
        config = deepcopy(cfg.method.teacher)
        if "require_head" not in config:
            raise UserError(
                f"teacher.source=pretrained needs a timm net, got {describe(config)}: choose one "
                "with model@method.teacher=…, or set teacher.source=train"
            )
        config.update(weights="pretrained", require_head=True)
        return Teacher(build_net(config, cfg.teacher.seed, "teacher"), "the library's weights")
    path = Path(source).expanduser()
    if path.is_dir():
        key = the_student_of(path)
        check_same_classes(path, data)
        return Teacher(load_student(path, key), f"{key} of {path}")
    if not path.exists():
        raise UserError(
            f"teacher.source must be train, pretrained, a checkpoint file or a run directory, and "
            f"'{source}' is none of them"
        )
    config = deepcopy(cfg.method.teacher)
    if "require_head" in config:
        config.update(weights=str(path), require_head=True)
        return Teacher(build_net(config, cfg.teacher.seed, "teacher"), str(path))
    net = build_net(config, cfg.teacher.seed, "teacher")
    load_weights(net, path, "teacher.source")
    return Teacher(net, str(path))


def teacher_run(cfg: DictConfig) -> DictConfig:
    """The ordinary supervised run that trains the teacher of ``cfg``."""
    run = deepcopy(cfg)
    run.seed = run.data.seed = cfg.teacher.seed
    run.data.batch_size = cfg.teacher.batch_size
    run.optimizer, run.scheduler = cfg.teacher.optimizer, cfg.teacher.scheduler
    run.trainer = {"log_every_n_steps": cfg.trainer.log_every_n_steps, **cfg.teacher.trainer}
    run.method = supervised({"student": cfg.method.teacher}, cfg)
    run.method.seed = cfg.teacher.seed
    run.title = f"teacher {describe(cfg.method.teacher)}"
    return one_device(run)


def baseline_run(cfg: DictConfig) -> DictConfig:
    """The supervised run that trains the students of ``cfg`` from labels alone, for as long."""
    run = deepcopy(cfg)
    run.method = supervised(cfg.method.students, cfg)
    run.title = "labels only"
    return one_device(run)


def supervised(students: Any, cfg: DictConfig) -> DictConfig:
    """A supervised method's configuration for the given nets."""
    return OmegaConf.create(
        {
            "_target_": SUPERVISED,
            "students": students,
            "num_classes": cfg.task.num_classes,
            "seed": cfg.seed,
        }
    )


def one_device(run: DictConfig) -> DictConfig:
    """A run of its own beside another: on one device, without logger, resume or baselines."""
    run.hardware.update(devices=1, num_nodes=1, strategy="auto")
    run.update(logger={}, run_dir=None, resume=None, baselines=None)
    return run


def load_student(directory: Path, key: str) -> nn.Module:
    """A finished run's student with the weights that were chosen on val."""
    config = OmegaConf.load(directory / "config.yaml").method.students[key]
    if "weights" in config:
        config.weights = "none"  # the checkpoint holds them all
    net = build_net(config, 0, key)
    load_weights(net, directory / f"best-{key}.ckpt", "teacher.source")
    return net


def the_student_of(directory: Path) -> str:
    """The student of a run directory: its only one, or the one that did best on val."""
    if not (directory / "metrics.json").exists():
        raise UserError(
            f"teacher.source={directory} is no finished run: expected metrics.json, config.yaml and"
            " best-<key>.ckpt in it"
        )
    nets = json.loads((directory / "metrics.json").read_text())["nets"]
    students = OmegaConf.load(directory / "config.yaml").method.students
    return max(students, key=lambda key: nets[key]["val"].get("accuracy", 0.0))


def check_same_classes(directory: Path, data: ClassificationData) -> None:
    """Raises ``UserError`` if a run was of other classes than ``data``."""
    was = json.loads((directory / "environment.json").read_text())["data"]["classes_sha256"]
    if was != classes_sha256(data):
        count = OmegaConf.load(directory / "config.yaml").task.num_classes
        raise UserError(
            f"the teacher must know the data's {data.num_classes} classes, {directory} was trained "
            f"on {count} other ones (teacher.source=…)"
        )


# What every net has, and says nothing of its architecture.
COMMON = "num_classes in_chans num_inputs weights dropout block_dropout mean std".split()


def describe(config: DictConfig) -> str:
    """A net's name for people: timm's, or its factory's with what shapes it."""
    if "name" in config:
        return factory(config)
    shape = [value for key, value in config.items() if key not in COMMON and key[0] != "_"]
    shown = ", ".join(str(value) for value in shape if value is not None)
    return f"{factory(config)}({shown})"


def factory(config: DictConfig) -> str:
    """timm's name of a net, or that of the function that makes it."""
    if "name" in config:
        return str(config.name).split(".")[0]  # without the tag of its weights
    return str(config._target_).rsplit(".", 1)[-1]
