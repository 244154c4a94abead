"""Refuses what cannot work before a teacher trains for hours and before anything is written."""

import inspect
import re
from pathlib import Path

import torch
from hydra.utils import get_object, instantiate
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.callbacks.averaging import SWA, AveragedStudents
from kd_lightning.data.classification import ClassificationData
from kd_lightning.evaluation.robustness.of_run import check_attacks
from kd_lightning.methods.base import Learner
from kd_lightning.methods.distiller import Distiller
from kd_lightning.models.averages import check_alike
from kd_lightning.models.ensemble import LOGITS_ONLY
from kd_lightning.records.run_directory import read_config
from kd_lightning.running.build import build_method
from kd_lightning.running.confidence_temperature import check_calibration, is_to_be_calibrated
from kd_lightning.running.teacher_check import check_expectation
from kd_lightning.running.trainer import bare_trainer
from kd_lightning.teacher_cache.cache import check_cache
from kd_lightning.teachers.baselines import baseline_run, baselines_of
from kd_lightning.teachers.own_run import sources_of, teacher_run, trains_teacher
from kd_lightning.teachers.sources import Teacher, build_net, one_by_one, together
from kd_lightning.teachers.unused_keys import TEACHER, check_interpolation, check_weights_keys

# Whether a metric on val should rise
BETTER = {"accuracy": "max", "robust_accuracy": "max", "nll": "min", "ece": "min"}


def check_run(cfg: DictConfig, data: ClassificationData) -> None:
    """Builds everything that a run needs, with an untrained teacher, and discards it.

    Raises:
        UserError: something cannot be built, or does not fit the rest.
    """
    sizes = {"trainer": cfg.data.batch_size}
    if "teacher" in cfg.method:
        sizes["teacher.trainer"] = cfg.teacher.batch_size
    for section, batch_size in sizes.items():
        trainer = OmegaConf.select(cfg, section)
        check_length(trainer, section)
        check_batches(trainer, section, data, batch_size)
    check_monitors(cfg, data)
    check_averaging(cfg)
    check_evaluation(cfg, data)
    try:
        trainer = bare_trainer(cfg, logger=False, enable_checkpointing=False)
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise_refused("Lightning's Trainer", error, "trainer.…=… or hardware.…=…")
    val = data.parts["val"]
    if val is not None and len(val) < trainer.world_size:
        raise UserError(
            f"each of {trainer.world_size} devices needs a sample of val, which has {len(val)}: "
            "choose fewer (hardware.devices=…), or more for val (data.val_fraction=…)"
        )
    check_optimizer(cfg, "")
    teacher = None
    if "teacher" in cfg.method:
        check_optimizer(cfg.teacher, "teacher.")
        check_expectation(cfg)
        check_teacher_batches(cfg, data)
        net = build_net(cfg.method.teacher, cfg.teacher.seed, "teacher")
        teacher = Teacher(net, "untrained", "")
    method = build_method(cfg, teacher)
    if method.needs_indices and data.skip_bad and trainer.world_size > 1:
        raise UserError(
            "the devices exchange the samples of a step for the memory of this loss, equally many "
            "of each, so no image may be left out: set data.on_bad_image=error"
        )
    check_net_keys(cfg, method, teacher)
    method.parameter_groups()
    if teacher is not None:
        check_teacher(cfg, data, method, teacher)
    list(method.stages())
    for name in baselines_of(cfg):
        build_method(baseline_run(cfg, name), None).parameter_groups()
    if cfg.baselines is not None and cfg.scheduler.get("end", 1.0) < 1:
        raise UserError(
            f"baselines={cfg.baselines} does not support scheduler.end={cfg.scheduler.end}, which "
            "is for averaged weights, and a baseline has none: leave baselines out, and run "
            "method=supervised with the same scheduler and callbacks"
        )
    if cfg.evaluation.soups:
        check_alike(method.students)


def check_length(trainer: DictConfig, key: str) -> None:
    """Raises ``UserError`` for a run that must be longer than it may be."""
    for unit, no_limit in (("epochs", None), ("steps", -1)):
        least, most = trainer.get(f"min_{unit}"), trainer.get(f"max_{unit}", no_limit)
        if least is not None and most != no_limit and least > most:
            raise UserError(f"{key}.min_{unit} must be <= {key}.max_{unit}={most}, got {least}")


def check_batches(trainer: DictConfig, key: str, data: ClassificationData, batch_size: int) -> None:
    """Raises ``UserError`` for a share of an epoch without a batch, or a validation after more
    batches than an epoch has: Lightning says so after the teacher has been trained.
    """
    train = len(data.parts["train"]) // batch_size
    val = -(-len(data.parts["val"] or ()) // batch_size)
    epochs = {"limit_train_batches": train, "val_check_interval": train, "limit_val_batches": val}
    for name, batches in epochs.items():
        share = trainer.get(name)
        if isinstance(share, float) and share and batches and int(share * batches) < 1:
            raise UserError(f"{key}.{name}={share} of {batches} batches is none: choose more")
    interval, limit = trainer.get("val_check_interval"), trainer.get("limit_train_batches")
    most = min(train, limit) if isinstance(limit, int) else train
    counts_epochs = trainer.get("check_val_every_n_epoch", 1) is not None
    if isinstance(interval, int) and counts_epochs and interval > most > 0:
        raise UserError(
            f"{key}.val_check_interval must be <= {most}, the batches of an epoch, got {interval} "
            f"({key}.check_val_every_n_epoch=null counts batches over epochs)"
        )


def check_monitors(cfg: DictConfig, data: ClassificationData) -> None:
    """Raises ``UserError`` for a callback that monitors a metric which is never logged."""
    known = get_object(cfg.method._target_).val_names
    names = [f"val/{name}" for name in ("accuracy", "robust_accuracy") if name in known]
    for key in cfg.method.students:
        names += [f"val/{key}/{name}" for name in known]
    for key, callback in cfg.callbacks.items():
        if callback is None:
            continue
        name = callback.get("monitor") or "train/"
        if name.startswith("train/") and name not in ("train/loss", "train/accuracy"):
            continue  # what a method logs in training is its own
        if name in names and data.parts["val"] is not None:
            if not cfg.resume:  # no other mode may be set then
                check_mode(key, name, callback)
            continue
        reason = "there is no val part (data.val_fraction=…)"
        if data.parts["val"] is not None:
            reason = f"expected one of {', '.join(names)} (callbacks.{key}.monitor=…)"
        raise UserError(f"callbacks.{key} monitors {name}, which is not logged: {reason}")


def check_mode(key: str, metric: str, callback: DictConfig) -> None:
    """Raises ``UserError`` for a callback that waits for a metric to become worse."""
    parameter = inspect.signature(get_object(callback._target_)).parameters.get("mode")
    mode = callback.get("mode", parameter and parameter.default)
    expected = BETTER.get(metric.rpartition("/")[2])
    if {mode, expected} == {"min", "max"}:
        raise UserError(
            f"callbacks.{key} monitors {metric} with mode={mode}, which waits for it to become "
            f"worse: set callbacks.{key}.mode={expected}"
        )


def check_averaging(cfg: DictConfig) -> None:
    """Raises ``UserError`` for weight averaging that would be wrong in this run."""
    targets = {key: get_object(node._target_) for key, node in cfg.callbacks.items() if node}
    kinds = (WeightAveraging, StochasticWeightAveraging)
    found = {k: t for k, t in targets.items() if inspect.isclass(t) and issubclass(t, kinds)}
    for key, target in found.items():
        if not issubclass(target, AveragedStudents):
            raise UserError(
                f"callbacks.{key} validates other weights than the run saves: use callbacks=swa or "
                f"callbacks=ema instead of {target.__name__}"
            )
        instantiate(cfg.callbacks[key])
    if len(found) > 1:
        raise UserError(f"callbacks.{' and callbacks.'.join(found)} both average: choose one")
    if cfg.resume and SWA in found.values():
        was = read_config(Path(cfg.resume), "trainer").trainer.max_epochs
        if was != cfg.trainer.max_epochs:
            raise UserError(
                f"callbacks.swa.start is a share of trainer.max_epochs={was}, so this run cannot "
                f"be resumed with {cfg.trainer.max_epochs}: start a new one"
            )


def check_evaluation(cfg: DictConfig, data: ClassificationData) -> None:
    check_attacks(cfg)
    if cfg.evaluation.temperature_scaling and data.parts["val"] is None:
        raise UserError(
            "evaluation.temperature_scaling=true fits temperatures on val, and there is no val "
            "part: set data.val_fraction > 0, or evaluation.temperature_scaling=false"
        )


def check_optimizer(cfg: DictConfig, key: str) -> None:
    """Raises ``UserError`` for values that the optimizer or the schedule refuses."""
    try:
        optimizer = instantiate(cfg.optimizer, _convert_="object")([nn.Parameter(torch.zeros(1))])
        instantiate(cfg.scheduler, _convert_="object")(optimizer, 100)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise_refused("the optimizer", error, f"{key}optimizer.…=…")


def check_net_keys(cfg: DictConfig, method: Learner, teacher: Teacher | None) -> None:
    """Raises ``UserError`` for keys of nets without an effect; a resumed run has passed this."""
    if cfg.resume:
        return
    nets = {f"method.students.{key}": net for key, net in method.students.items()}
    if teacher is not None:
        nets[TEACHER] = teacher.net
    for key, net in nets.items():
        config = OmegaConf.select(cfg, key)
        check_weights_keys(config, key)
        # a file says to which size its images are resized
        if key != TEACHER or cfg.teacher.source in ("train", "untrained"):
            check_interpolation(net, config.get("interpolation"), key)


def check_teacher_batches(cfg: DictConfig, data: ClassificationData) -> None:
    if trains_teacher(cfg):
        size, samples = cfg.teacher.batch_size, len(data.parts["train"])
        if not 1 <= size <= samples:
            raise UserError(
                f"teacher.batch_size must be 1..{samples}, for there are {samples} training "
                f"samples, got {size}"
            )


def check_teacher(
    cfg: DictConfig, data: ClassificationData, method: Learner, teacher: Teacher
) -> None:
    """Raises ``UserError`` where this method and this teacher do not go together."""
    if trains_teacher(cfg):
        run = teacher_run(cfg)
        build_method(run, None)
    check_calibration(data, method)
    if OmegaConf.is_list(cfg.teacher.source):
        check_several(cfg, data, teacher)
    if isinstance(method, Distiller):
        check_cache(cfg, data, method)
        if method.mixed_targets and data.mixing is None:
            raise UserError(
                "method.mixed_targets=true has no effect without mixed samples: choose how they "
                "are mixed (mixing@data.mixing=mixup), or set it to false"
            )
        if "untrained" in sources_of(cfg):
            raise UserError(
                "teacher.source=untrained is for methods whose teacher learns too, and this "
                "teacher never changes: set teacher.source=train"
            )


def check_several(cfg: DictConfig, data: ClassificationData, teacher: Teacher) -> None:
    """Raises ``UserError`` if the method needs more of its teacher than logits, which is all that
    several teachers have: it is built with them and does a step.

    Args:
        teacher: one with which the method could be built.
    """
    several = together([teacher] * len(one_by_one(cfg)))
    x, y, *_ = next(iter(data.loader("train")))
    try:
        method = build_method(cfg, several)
        method.compile_step, method.record_step = None, None
        method.mixed_targets = False  # the teacher is asked the same
        if is_to_be_calibrated(method):
            method.confidence_temperature = 1.0  # in place of the number that val gives later
        method.train().training_step((x[:2], y[:2]), 0)
    except UserError as error:
        raise UserError(LOGITS_ONLY) from error


def raise_refused(who: str, error: Exception, keys: str) -> None:
    """Raises a library's error about a person's values as one sentence."""
    if isinstance(error, UserError):
        raise error
    said = re.sub(r"\.\s+(?=[A-Z])", "; ", " ".join(str(error).split())).rstrip(".")
    raise UserError(f"{who} refuses its settings: {said} ({keys})") from error
