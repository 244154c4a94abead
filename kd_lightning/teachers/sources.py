"""Finds the teacher that a run needs, or trains it. A frozen teacher is never untrained."""

import hashlib
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import seed_stream, stream_seed
from kd_lightning.data.classification import ClassificationData
from kd_lightning.models.weights import load_weights
from kd_lightning.teachers.store import find_or_train

SUPERVISED = "kd_lightning.methods.supervised.Supervised"


@dataclass(frozen=True)
class Teacher:
    """A trained net.

    Attributes:
        origin: where its weights come from, in words.
        name: of the net, for people.
    """

    net: nn.Module
    origin: str
    name: str

    @property
    def sha256(self) -> str:
        """16 hex digits of its weights."""
        return sha256_of(self.net)


def sha256_of(net: nn.Module) -> str:
    """16 hex digits of a net's weights and buffers."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


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
    source, config = str(cfg.teacher.source), deepcopy(cfg.method.teacher)
    if source == "train":
        name = f"teacher-{factory(config)}"
        run, store = teacher_run(cfg), Path(cfg.teacher.store)
        directory = find_or_train(run, store, name, data.fingerprint, train=train, say=say)
        net = load_student(directory, "student")
        return Teacher(net, f"trained, {directory}", describe(config))
    if source == "untrained":
        net = build_net(config, cfg.teacher.seed, "teacher")
        return Teacher(net, "untrained at first, trained with the students", describe(config))
    if source == "pretrained":
        if "require_head" not in config:
            raise UserError(
                f"teacher.source=pretrained needs a timm net, got {describe(config)}: choose one "
                "with model@method.teacher=…, or set teacher.source=train"
            )
        config.update(weights="pretrained", require_head=True)
        origin = "the library's weights, which have seen all of ImageNet-1k's training images"
        return Teacher(build_net(config, cfg.teacher.seed, "teacher"), origin, describe(config))
    path = Path(source).expanduser()
    if path.is_dir():
        return teacher_of_a_run(path, cfg, data)
    if not path.exists():
        raise UserError(
            f"teacher.source must be train, pretrained, a checkpoint file or a run directory, got "
            f"'{source}'"
        )
    if "require_head" in config:
        config.update(weights=str(path), require_head=True)
        net = build_net(config, cfg.teacher.seed, "teacher")
    else:
        net = build_net(config, cfg.teacher.seed, "teacher")
        load_weights(net, path, "teacher.source")
    return Teacher(net, str(path), describe(config))


def teacher_of_a_run(directory: Path, cfg: DictConfig, data: ClassificationData) -> Teacher:
    """The best student of another run, with the dropout rates of this run's teacher."""
    key = the_student_of(directory)
    check_same_data(directory, cfg, data)
    config = OmegaConf.load(directory / "config.yaml").method.students[key]
    ours = cfg.method.teacher
    rates = {k: ours[k] for k in ("dropout", "block_dropout") if k in config and k in ours}
    config.update(rates)
    return Teacher(load_student(directory, key, rates), f"{key} of {directory}", describe(config))


def teacher_run(cfg: DictConfig) -> DictConfig:
    """The ordinary run that trains the teacher of ``cfg`` by ``cfg.teacher.method``.

    Raises:
        UserError: that method needs a teacher itself.
    """
    if "teacher" in cfg.teacher.method:
        name = cfg.teacher.method._target_.split(".")[-2]
        raise UserError(
            f"teacher.method must be a method without a teacher, got {name}: choose another with "
            "method@teacher.method=…"
        )
    run = resolved(cfg)
    teacher, net = run.teacher, run.method.teacher
    # its own streams, or a student of the same net and seed would have the same initial weights
    run.seed = run.data.seed = stream_seed("teacher", teacher.seed) % 2**31
    run.data.batch_size = teacher.batch_size
    run.optimizer, run.scheduler = teacher.optimizer, teacher.scheduler
    run.trainer = {"log_every_n_steps": run.trainer.log_every_n_steps, **teacher.trainer}
    run.title = f"teacher {describe(net)}"
    run.method = teacher.method
    run.method.update(students={"student": net}, seed=run.seed)
    return one_device(run)


def baseline_run(cfg: DictConfig) -> DictConfig:
    """The supervised run that trains the students of ``cfg`` from labels alone, for as long."""
    run = resolved(cfg)
    rates = run.method.get("learning_rates")
    run.method = supervised(run.method.students, run)
    run.method.learning_rates = rates
    run.title = "labels only"
    return one_device(run)


def resolved(cfg: DictConfig) -> DictConfig:
    """A copy of ``cfg`` without references: in a run made from it, the values of ``${seed}`` or
    ``${optimizer.lr}`` stay those of ``cfg``.
    """
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))


def supervised(students: Any, cfg: DictConfig) -> DictConfig:
    """A supervised method's configuration for the given nets."""
    return OmegaConf.create(
        {
            "_target_": SUPERVISED,
            "students": students,
            "num_classes": cfg.task.num_classes,
            "learning_rates": None,
            "seed": cfg.seed,
        }
    )


def one_device(run: DictConfig) -> DictConfig:
    """The run on one device, without callbacks that could stop or change it."""
    devices = run.hardware.devices
    run.hardware.update(devices=devices[:1] if OmegaConf.is_list(devices) else 1, num_nodes=1)
    run.callbacks = {key: node for key, node in run.callbacks.items() if key == "progress"}
    run.evaluation = dict.fromkeys(run.evaluation, False)  # its nets are tested in this run too
    run.teacher.update(cache=None, cache_top_k=None)  # it is not distilled
    run.update(logger={}, run_dir=None, resume=None, baselines=None)
    return run


def load_student(directory: Path, key: str, rates: Mapping[str, float] | None = None) -> nn.Module:
    """A finished run's student with the weights that were chosen on val.

    Args:
        rates: of dropout, to replace those of the run.
    """
    config = OmegaConf.load(directory / "config.yaml").method.students[key]
    config.update(rates or {})
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


def check_same_data(directory: Path, cfg: DictConfig, data: ClassificationData) -> None:
    """Raises ``UserError`` if a run had other classes, or may have seen our val or test part."""
    was = json.loads((directory / "environment.json").read_text())["data"]
    if was["classes_sha256"] != data.classes_sha256:
        count = OmegaConf.load(directory / "config.yaml").task.num_classes
        raise UserError(
            f"the teacher must know the data's {data.num_classes} classes, {directory} was trained "
            f"on {count} other classes (teacher.source=…)"
        )
    if was["fingerprint"] != data.fingerprint and not cfg.teacher.other_data:
        raise UserError(
            f"{directory} was trained on other data or another split ({was['protocol']}), so it "
            "may have seen this run's val or test part: set data.… as it was there, or "
            "teacher.other_data=true if it has not"
        )


# Arguments that say nothing about the architecture.
COMMON = frozenset(
    ("num_classes", "in_chans", "num_inputs", "weights", "dropout", "block_dropout", "mean", "std")
)


def describe(config: DictConfig) -> str:
    """A net's name for people: timm's, or that of its factory with its sizes."""
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
