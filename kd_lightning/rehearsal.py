"""What cannot work is refused before a teacher trains for hours, and before anything is written."""

import re

import torch
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.build import bare_trainer, build_method
from kd_lightning.data.classification import ClassificationData
from kd_lightning.errors import UserError
from kd_lightning.teachers import Teacher, build_net


def rehearse(cfg: DictConfig, data: ClassificationData) -> None:
    """Builds all that a run will need, with an untrained teacher, and throws it away.

    Raises:
        UserError: something cannot be built, or does not fit the rest.
    """
    sections = ["trainer", "teacher.trainer"] if "teacher" in cfg.method else ["trainer"]
    for section in sections:
        check_length(OmegaConf.select(cfg, section), section)
    check_monitors(cfg, data)
    try:
        bare_trainer(cfg, logger=False, enable_checkpointing=False)
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise_refused("Lightning's Trainer", error, "trainer.…=… or hardware.…=…")
    check_optimizer(cfg, "")
    teacher = None
    if "teacher" in cfg.method:
        check_optimizer(cfg.teacher, "teacher.")
        check_teacher_batches(cfg, data)
        teacher = Teacher(
            build_net(cfg.method.teacher, cfg.teacher.seed, "teacher"), "untrained", ""
        )
    build_method(cfg, teacher)


def check_length(trainer: DictConfig, key: str) -> None:
    """Raises ``UserError`` for a run without a step, or without an end."""
    for name in ("accumulate_grad_batches", "log_every_n_steps"):
        if trainer.get(name, 1) < 1:
            raise UserError(f"{key}.{name} must be >= 1, got {trainer[name]}")
    epochs, steps = trainer.max_epochs, trainer.get("max_steps", -1)
    if epochs is None or epochs < 1 or steps == 0:
        raise UserError(
            f"{key}.max_epochs must be >= 1, and {key}.max_steps too, or -1 for no other limit; "
            f"got {epochs} and {steps}"
        )


def check_monitors(cfg: DictConfig, data: ClassificationData) -> None:
    """Raises ``UserError`` for a callback that watches what is never logged."""
    names = ["val/accuracy"]
    for key in cfg.method.students:
        names += [f"val/{key}/{name}" for name in ("accuracy", "nll", "ece")]
    for key, callback in cfg.callbacks.items():
        if callback is None:
            continue
        name = callback.get("monitor", "train/")
        if name.startswith("train/") or (name in names and data.parts["val"] is not None):
            continue
        reason = "there is no val part (data.val_fraction=…)"
        if data.parts["val"] is not None:
            reason = f"expected one of {', '.join(names)} (callbacks.{key}.monitor=…)"
        raise UserError(f"callbacks.{key} watches {name}, which is not logged: {reason}")


def check_optimizer(cfg: DictConfig, key: str) -> None:
    """Raises ``UserError`` for values that the optimizer or the schedule refuses."""
    try:
        optimizer = instantiate(cfg.optimizer, _convert_="object")([nn.Parameter(torch.zeros(1))])
        instantiate(cfg.scheduler, _convert_="object")(optimizer, 100)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise_refused("the optimizer", error, f"{key}optimizer.…=…")


def check_teacher_batches(cfg: DictConfig, data: ClassificationData) -> None:
    if cfg.teacher.source == "train":
        size, samples = cfg.teacher.batch_size, len(data.parts["train"])
        if not 1 <= size <= samples:
            raise UserError(
                f"teacher.batch_size must be 1..{samples}, for there are {samples} training "
                f"samples, got {size}"
            )


def raise_refused(who: str, error: Exception, keys: str) -> None:
    """A library's refusal of a person's values, as a sentence."""
    if isinstance(error, UserError):
        raise error
    said = re.sub(r"\.\s+(?=[A-Z])", "; ", " ".join(str(error).split())).rstrip(".")
    raise UserError(f"{who} refuses its settings: {said} ({keys})") from error
