"""Runs a method's stages before its training, each once, and keeps their results.

A result lies in ``<outputs>/stages/<method>-<stage>-<hash>/``: ``result.safetensors``, the log
``epochs.csv`` and ``last.ckpt``, from which a stage that was stopped is resumed. The hash is of all
that shapes the result: the stage's settings and initial weights, the teacher, the data.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.ranks import launcher_rank
from kd_lightning.base.streams import stream_seed
from kd_lightning.base.tensor_files import read_tensors, write_tensors
from kd_lightning.base.weights_hash import sha256_of
from kd_lightning.callbacks.save_epoch import SaveEpoch
from kd_lightning.data.classification import ClassificationData
from kd_lightning.methods.base import Learner
from kd_lightning.methods.stage import Stage
from kd_lightning.records.generations import choose_checkpoint, good_checkpoint
from kd_lightning.records.run_directory import make_directory
from kd_lightning.running.trainer import bare_trainer
from kd_lightning.teachers.own_run import one_device
from kd_lightning.teachers.store import IMMATERIAL, find_or_make, shape_hash, without_earlier

RESULT = "result.safetensors"


def complete_stages(
    cfg: DictConfig,
    data: ClassificationData,
    method: Learner,
    *,
    apart: Callable[[DictConfig], Any],
    say: Callable[[str], None],
) -> None:
    """Gives the method's stages their results, which are computed first if they are not kept.

    Args:
        apart: does ``fit_next_stage`` for a configuration in a process of its own. Used where
            torchrun or SLURM started this process: a Trainer would take their variables as its own.
        say: tells the person what happens.
    """
    for stage in method.stages():
        directory = directory_of(cfg, data, stage)
        make_directory(directory.parent, "outputs")

        def make(stage: Stage = stage, directory: Path = directory) -> None:
            if launcher_rank() is None:
                fit_stage(cfg, data, stage, directory, say)
            else:
                apart(cfg)

        path = find_or_make(directory, RESULT, stage.name, make=make, check=check_result, say=say)
        stage.load_state_dict(read_tensors(path)[0])
        end_stage(method, stage)


def fit_next_stage(
    cfg: DictConfig, data: ClassificationData, method: Learner, say: Callable[[str], None]
) -> None:
    """Trains the first stage without a result, whose lock the calling process holds."""
    for stage in method.stages():
        directory = directory_of(cfg, data, stage)
        if not (directory / RESULT).exists():
            return fit_stage(cfg, data, stage, directory, say)
        stage.load_state_dict(read_tensors(directory / RESULT)[0])
        end_stage(method, stage)


def take_length(cfg: DictConfig, data: ClassificationData) -> None:
    """Sets the epochs of a run of which its stage takes a share, where ``trainer.max_steps`` ends
    the run before ``trainer.max_epochs``.
    """
    recipe, steps = cfg.method.get("stage_recipe"), cfg.trainer.get("max_steps") or -1
    if recipe is None or steps < 1 or not OmegaConf.is_interpolation(recipe, "run_epochs"):
        return
    batches = steps * (cfg.trainer.get("accumulate_grad_batches") or 1)
    per_epoch = max(1, len(data.parts["train"]) // cfg.data.batch_size)
    epochs = math.ceil(batches / per_epoch)
    recipe.run_epochs = epochs if recipe.run_epochs < 1 else min(recipe.run_epochs, epochs)


def end_stage(method: Learner, stage: Stage) -> None:
    """Freezes the modules of a stage that is done, unless the method trains them further."""
    for module in [] if stage.learns_on else stage.children():
        method.freeze_module(module)


def check_result(directory: Path) -> None:
    """Raises ``Damaged`` unless a kept stage is as it was written."""
    if (directory / RESULT).exists():
        read_tensors(directory / RESULT)
    else:
        good_checkpoint(directory)


def directory_of(cfg: DictConfig, data: ClassificationData, stage: Stage) -> Path:
    """The directory of a stage's result."""
    method = cfg.method._target_.split(".")[-2]
    config = OmegaConf.to_container(cfg.method, resolve=True)
    samples = without_earlier(OmegaConf.to_container(cfg.data, resolve=True))
    shape = shape_hash(
        type(stage).__qualname__,
        {"epochs": stage.max_epochs, "settings": stage.settings(), "method": cfg.method._target_}
        | {key: without_weights(config.get(key)) for key in stage.config_keys},
        {key: value for key, value in samples.items() if key not in IMMATERIAL["data"]},
        [sha256_of(stage), sha256_of(stage.teacher), data.fingerprint, str(cfg.hardware.precision)],
        # the weights do not say all of a teacher, such as the size of its input
        [
            {k: v for k, v in config.get("teacher", {}).items() if k != "weights"},
            repr(stage.teacher),
        ],
    )
    return Path(cfg.outputs) / "stages" / f"{method}-{stage.name}-{shape}"


def without_weights(config: Any) -> Any:
    """A configuration without the files of its nets' weights, whose content is hashed apart, and
    without null, which a key has that is added later.
    """
    if not isinstance(config, dict):
        return config
    kept = {key: value for key, value in config.items() if key != "weights" and value is not None}
    return {key: without_weights(value) for key, value in kept.items()}


def fit_stage(
    cfg: DictConfig,
    data: ClassificationData,
    stage: Stage,
    directory: Path,
    say: Callable[[str], None],
) -> None:
    """Trains a stage on one device, from its last finished epoch if there is one."""
    directory.mkdir(exist_ok=True)
    run = one_device(cfg.copy())
    steps = cfg.trainer.log_every_n_steps
    run.trainer = {"max_epochs": stage.max_epochs, "log_every_n_steps": steps}
    callbacks = [StageProgress(stage.name, say), SaveEpoch(directory)]
    trainer = bare_trainer(run, logger=False, callbacks=callbacks, default_root_dir=directory)
    samples = copy.copy(data)
    if stage.learns_on:  # or the students would see the same crops in the same order once more
        samples.seed = stream_seed(data.seed, "stage", stage.name)
    batches = samples.loader("train", device=trainer.strategy.root_device)
    checkpoint = choose_checkpoint(directory, say)
    trainer.fit(stage, batches, ckpt_path=checkpoint, weights_only=True)
    state = {name: value.cpu().contiguous() for name, value in stage.state_dict().items()}
    write_tensors(directory / RESULT, state)


class StageProgress(Callback):
    """Says about ten times how far a stage is."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self.name = name
        self.say = say

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        done, total = trainer.current_epoch + 1, trainer.max_epochs
        if done * 10 // total > trainer.current_epoch * 10 // total:
            values = [f"{k} {v:.4g}" for k, v in trainer.callback_metrics.items()]
            self.say(f"{self.name}: {', '.join([f'epoch {done} of {total}', *values])}")
