"""One run: build, fit, choose on val, test once, write the record. ``distill`` is the run from
Python: ``distill("method=dual_student", "data=digits").metrics``.
"""

import gc
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import json_text
from kd_lightning.base.interrupts import interruptible
from kd_lightning.base.kept_files import remove_kept, write_kept
from kd_lightning.base.ranks import forget_ranks, is_first_rank, launcher_rank, without_ranks
from kd_lightning.base.threads import use_threads
from kd_lightning.callbacks.best_students import BestStudents
from kd_lightning.callbacks.pruning import Pruned
from kd_lightning.config.command_line import as_user_errors, check_one_run, compose, report_errors
from kd_lightning.config.console import console
from kd_lightning.config.console import say as show
from kd_lightning.config.paths import check_paths
from kd_lightning.config.schema import check_configuration
from kd_lightning.data.classification import ClassificationData
from kd_lightning.evaluation import calibration, table
from kd_lightning.evaluation.final_test import test_run
from kd_lightning.methods.base import Learner
from kd_lightning.methods.distiller import Distiller
from kd_lightning.records.generations import choose_checkpoint, has_checkpoint
from kd_lightning.records.jobs import current_job
from kd_lightning.records.resumed_config import (
    changeable_keys,
    is_unfinished_now,
    load_resumed_config,
    take_missing,
    with_data_of_run,
)
from kd_lightning.records.run_directory import holding, make_run_directory, read_config
from kd_lightning.running.build import (
    build_data,
    build_method,
    number_samples,
    quieten,
)
from kd_lightning.running.compile_trial import compile_trial
from kd_lightning.running.confidence_temperature import calibrate_confidence
from kd_lightning.running.determinism import take_determinism
from kd_lightning.running.environment import (
    WORDS_FROM_PYTHON,
    check_unchanged,
    describe_environment,
    keep_first_command,
)
from kd_lightning.running.preflight import check_run
from kd_lightning.running.stages import complete_stages, fit_next_stage, take_length
from kd_lightning.running.sweep_data import check_like_finished_jobs
from kd_lightning.running.teacher_check import check_on_val
from kd_lightning.running.trainer import build_trainer, describe_run
from kd_lightning.running.way_back import how_to_resume, saying_how_to_skip
from kd_lightning.students.of_run import write_students
from kd_lightning.teacher_cache.cache import use_cache
from kd_lightning.teachers.baselines import BASELINES, baseline_run, baselines_of, kept_name
from kd_lightning.teachers.sources import get_teacher
from kd_lightning.teachers.store import find_or_train
from kd_lightning.teachers.unused_keys import check_overrides
from kd_lightning.trackers.results import log_results
from kd_lightning.trackers.safe_logger import check_loggers, closing_loggers


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        directory: its run directory.
        metrics: the content of ``metrics.json``.
    """

    directory: Path
    metrics: dict[str, Any]

    @property
    def objective(self) -> float | None:
        """Best val/accuracy, mean over the students; None without a val part. Never test."""
        return self.metrics["objective"]


def distill(*overrides: str, config_dir: str | Path | None = None) -> Result:
    """One run from Python, with the overrides that the command line takes.

    Args:
        config_dir: a folder of your own YAML, searched beside the package's.

    Raises:
        UserError: the run cannot be done as requested; the message says which key to change.
    """
    own = [] if config_dir is None else ["--config-dir", str(config_dir)]
    before = WORDS_FROM_PYTHON.set([*own, *overrides])
    try:
        with as_user_errors(overrides):
            check_one_run(overrides)
            return run(compose(with_data_of_run(overrides), config_dir), list(overrides))
    finally:
        WORDS_FROM_PYTHON.reset(before)


def run(cfg: DictConfig, overrides: list[str] | None = None, *, show_table: bool = True) -> Result:
    """Trains, tests and records the run that a composed configuration describes.

    Args:
        overrides: from the command line; a resumed run checks them.
        show_table: print the table at the end.
    """
    quieten()
    if cfg.resume:
        take_determinism(cfg, overrides or [])
        take_missing(cfg)
    check_configuration(cfg)
    is_mine = show_table and current_job() is None and is_first_rank()  # others are held already
    if cfg.resume:
        cfg = load_resumed_config(Path(cfg.resume), cfg, overrides or [])
        check_paths(cfg)
        if is_mine:  # it is held later, when all is built
            with holding(Path(cfg.resume)):
                pass
    check_overrides(cfg, overrides or [])
    check_loggers(cfg.logger)
    use_threads(cfg.threads)
    data = build_data(cfg)
    if show_table:  # not for a teacher or a baseline, whose data are these too
        for note in data.notes:
            say(note)
        if (job := current_job()) is not None:
            check_like_finished_jobs(job, cfg, data.fingerprint)
    if cfg.resume:
        check_unchanged(Path(cfg.resume), "data", data.fingerprint)
        unlabeled = data.unlabeled_samples
        check_unchanged(Path(cfg.resume), "unlabeled", unlabeled and unlabeled.fingerprint)
    check_run(cfg, data)
    teacher = None
    if "teacher" in cfg.method:
        teacher = get_teacher(cfg, data, train=train_quietly, say=say)
    take_length(cfg, data)
    method = build_method(cfg, teacher)
    checked = check_on_val(cfg, data, teacher, say)
    calibrate_confidence(cfg, data, method, say)
    complete_stages(cfg, data, method, apart=stage_apart, say=say)
    baselines = train_baselines(cfg, data)

    names = [_module(cfg.method), str(cfg.data.get("name") or _module(cfg.data))]
    title = cfg.title or " on ".join(names)
    directory = make_run_directory(cfg, "-".join(names))
    if cfg.resume and not has_checkpoint(directory):
        say(f"{directory} has no checkpoint: the run begins with its first epoch")
    best = BestStudents(directory)
    run_info = describe_run(directory, overrides or [], *names)
    number_samples(data, method)
    trainer = build_trainer(cfg, directory, title, run_info, method, best)
    trainer.callbacks += compile_trial(cfg, method, trainer, say)
    if isinstance(method, Distiller):
        data.mixing_sources = method.mixed_targets
        filling = use_cache(cfg, data, method, teacher, trainer.strategy.root_device, say)
        trainer.callbacks += [] if filling is None else [filling]
    with (
        holding(directory) if is_mine else nullcontext(),
        interruptible(how_to_resume(cfg, directory)),
        saying_how_to_skip(cfg, directory) if show_table else nullcontext(),
        closing_loggers(trainer.loggers, Pruned),
    ):
        if trainer.is_global_zero:
            environment = describe_environment(data, cfg, teacher, checked)
            check_unchanged(directory, "teacher", environment["teacher"]["fingerprint"])
            keep_first_command(environment, directory)
            config = OmegaConf.to_yaml(cfg, resolve=True)
            texts = {"config.yaml": config, "environment.json": json_text(environment)}
            if cfg.resume and is_unfinished_now(read_config(directory), cfg):
                remove_kept(directory, "metrics.json")
            write_kept(directory, texts)
        fit(trainer, method, data, directory)
        if not trainer.is_global_zero:
            sys.exit(0)  # test and record are rank 0's alone

        metrics = {"title": title, "seed": cfg.seed, "epochs": trainer.current_epoch}
        metrics["compiled"] = method.compile_step is not None
        tested, curves = test_run(trainer, method, data, best, cfg, teacher, baselines)
        metrics |= tested
        calibration.write(curves, directory, plots=cfg.evaluation.plots)
        write_students(directory, cfg, data, metrics, environment)
        write_results(directory, metrics)
        log_results(trainer.loggers, metrics, directory, trainer.global_step)
    if show_table:
        table.print_table(metrics, console)
        say(f"Record: {directory}")
    return Result(directory, metrics)


def write_results(directory: Path, metrics: dict[str, Any]) -> None:
    texts = {"table.md": table.markdown(metrics), "table.csv": table.as_csv(metrics)}
    # written last: a run that has it is finished
    write_kept(directory, {**texts, "metrics.json": json_text(metrics)})


def train_baselines(cfg: DictConfig, data: ClassificationData) -> dict[str, Path]:
    """The run directories of the students that are trained without a teacher, as ``baselines``
    asks for, by how they are trained.
    """
    store = Path(cfg.outputs) / "baselines"
    directories = {}
    for name in baselines_of(cfg):
        own_run, how = baseline_run(cfg, name), BASELINES[name]
        directories[how] = find_or_train(
            own_run, store, kept_name(cfg, name), data.fingerprint, train=train_quietly, say=say
        )
    return directories


def train_quietly(cfg: DictConfig) -> None:
    """Trains a run that another run needs; its progress is shown, its table is not.

    If torchrun or SLURM started this process, it happens in a process of its own, because a Trainer
    would read their variables as its own.
    """
    if launcher_rank() is None:
        run(cfg, changeable_keys(cfg), show_table=False)
        gc.collect()  # frees its memory on the device for the next run,
        torch.cuda.empty_cache()  # which asks the device how much is free
        return
    in_own_process("run_file", cfg)


def in_own_process(function: str, cfg: DictConfig) -> None:
    """Calls a function of this module with a saved configuration, in a process without ranks."""
    with tempfile.TemporaryDirectory() as folder:
        OmegaConf.save(cfg, Path(folder) / "run.yaml")
        program = f"import sys; from {__name__} import {function} as f; f(sys.argv[1])"
        command = [sys.executable, "-c", program, f"{folder}/run.yaml"]
        if subprocess.run(command, env=without_ranks(os.environ)).returncode:
            raise UserError("the run that this one needs has failed: see its message above")


def run_file(path: str) -> None:
    """``train_quietly`` in its own process, from a saved configuration."""
    with report_errors():
        cfg = OmegaConf.load(path)
        run(cfg, changeable_keys(cfg), show_table=False)


def stage_apart(cfg: DictConfig) -> None:
    in_own_process("stage_file", cfg)


def stage_file(path: str) -> None:
    """The next stage of a saved configuration."""
    with report_errors():
        cfg = OmegaConf.load(path)
        quieten()
        data = build_data(cfg)
        teacher = get_teacher(cfg, data, train=train_quietly, say=say)
        fit_next_stage(cfg, data, build_method(cfg, teacher), say)


def say(sentence: str) -> None:
    """Prints a sentence. In a sweep it is also what the job is doing."""
    if (job := current_job()) is not None and is_first_rank():
        job.report(phase=sentence)
    show(sentence)


def fit(trainer: Trainer, method: Learner, data: ClassificationData, directory: Path) -> None:
    """Trains, from the last finished epoch if there is one."""
    try:
        checkpoint = choose_checkpoint(directory, say)
        trainer.fit(method, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        # with max_steps, and nothing left to do, Lightning stays at the epoch before the last
        progress = trainer.fit_loop.epoch_progress.current
        progress.completed = progress.processed
    except BaseException:
        # otherwise the other ranks would wait for this one forever
        if (launcher := trainer.strategy.launcher) is not None:
            launcher.kill(signal.SIGKILL)
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if trainer.is_global_zero:
            forget_ranks()


def _module(config: DictConfig) -> str:
    return str(config._target_).split(".")[-2]
