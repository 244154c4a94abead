"""Builds Lightning's Trainer for a configuration."""

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranks import check_processes, is_first_rank
from kd_lightning.base.threads import use_threads
from kd_lightning.callbacks.job_progress import JobProgress
from kd_lightning.callbacks.pruning import pruning_callback
from kd_lightning.callbacks.save_epoch import SaveEpoch
from kd_lightning.config.schema import arguments_of
from kd_lightning.methods.base import Learner
from kd_lightning.methods.optimization import has_scale
from kd_lightning.records.jobs import current_job
from kd_lightning.running.determinism import use_determinism
from kd_lightning.trackers.run_info import RunInfo, run_name
from kd_lightning.trackers.safe_logger import SafeLogger


def describe_run(directory: Path, overrides: Sequence[str], method: str, data: str) -> RunInfo:
    """The description of a run for trackers: of a single run, or of a job of a sweep."""
    job = current_job()
    if job is None:
        return RunInfo(run_name({}, overrides, directory), None, method, (data,))
    spec = job.spec
    return RunInfo(run_name(spec.axes, overrides, directory), spec.sweep, method, (data,))


def build_trainer(
    cfg: DictConfig,
    directory: Path,
    title: str,
    run_info: RunInfo,
    method: Learner,
    *callbacks: Callback,
) -> Trainer:
    """Lightning's Trainer for ``cfg.trainer`` on ``cfg.hardware``, writing to ``directory``."""
    facts = {
        "save_dir": str(directory),
        "title": title,
        "run_info": run_info,
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    extra = [build_with(node, facts) for node in cfg.callbacks.values() if node is not None]
    if cfg.threads is not None:  # with several processes, Lightning has chosen another number
        extra.append(LambdaCallback(on_fit_start=lambda *_: use_threads(cfg.threads)))
    if (job := current_job()) is not None:
        extra.append(JobProgress(title, job.report))
        # from the configuration, which every rank has; only one rank has the directory
        own = cfg.resume or cfg.run_dir
        is_its_own = own is not None and Path(own).resolve() == job.directory.resolve()
        if is_its_own and (search := job.spec.search) is not None:
            extra.append(pruning_callback(job, search))
    return bare_trainer(
        cfg,
        unused=method.has_unused_parameters or not method.automatic_optimization,
        logger=[
            SafeLogger(key, partial(build_with, node, facts) if is_first_rank() else None)
            for key, node in cfg.logger.items()
        ],
        callbacks=[*extra, *callbacks, SaveEpoch(directory)],
        default_root_dir=directory,
    )


def build_with(node: DictConfig, facts: dict[str, Any]) -> Any:
    """Builds what ``node`` names, with those of ``facts`` that it takes as arguments."""
    known = arguments_of(get_object(node._target_)).known
    given = {name: fact for name, fact in facts.items() if name in known}
    return instantiate(node, _partial_=True)(**given)


def strategy_for(hardware: DictConfig, on_gpu: bool, unused: bool) -> Strategy | str:
    """DDP for more than one device, else what Lightning chooses.

    Buffers are not broadcast: ranks may evaluate different numbers of batches, and batch-norm
    statistics are averaged once an epoch instead (``Learner``).

    Args:
        unused: some steps give no gradient to weights that learn.
    """
    if count_processes(hardware, on_gpu) > 1:
        return DDPStrategy(broadcast_buffers=False, find_unused_parameters=unused)
    return "auto"


def count_processes(hardware: DictConfig, on_gpu: bool) -> int:
    """One for each device of all machines."""
    devices = hardware.devices
    if OmegaConf.is_list(devices):
        devices = len(devices)
    elif devices in (-1, "auto"):
        devices = torch.cuda.device_count() if on_gpu else 1
    return int(devices) * hardware.num_nodes


def trainer_settings(cfg: DictConfig, on_gpu: bool) -> dict[str, Any]:
    """The keys of ``trainer``. On a GPU cuDNN times its algorithms once, because all whole batches
    have one size, and keeps the fastest, unless the run is deterministic.
    """
    settings = OmegaConf.to_container(cfg.trainer, resolve=True)
    timed = {"benchmark": True} if on_gpu and not cfg.hardware.deterministic else {}
    return timed | settings


def own_environment() -> list[SLURMEnvironment]:
    """SLURM's, where it starts the ranks, without Lightning's way of starting a job again, which
    saves a checkpoint in the middle of an epoch.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]


def bare_trainer(cfg: DictConfig, *, unused: bool = False, **record: Any) -> Trainer:
    """Lightning's Trainer, to which ``record`` adds loggers and callbacks.

    Args:
        unused: some steps give no gradient to weights that learn.

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
    use_determinism(cfg, on_gpu)
    trainer = Trainer(
        **trainer_settings(cfg, on_gpu),
        accelerator=accelerator,
        devices=cfg.hardware.devices,
        num_nodes=cfg.hardware.num_nodes,
        precision=precision,
        deterministic=cfg.hardware.deterministic,
        strategy=strategy_for(cfg.hardware, on_gpu, unused),
        plugins=own_environment(),
        use_distributed_sampler=False,  # the data modules deal out samples themselves
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        **record,
    )
    if has_scale(trainer):
        # The first scaled gradients may be infinite. Their step is left out, and torch then takes
        # the schedule to have begun before the optimizer.
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before.*")
    if cfg.data.batch_size % trainer.world_size:
        raise UserError(
            f"data.batch_size={cfg.data.batch_size} is global and must divide over "
            f"{trainer.world_size} devices (hardware.devices=…)"
        )
    if cfg.data.get("unlabeled") is not None:
        count = round(cfg.data.batch_size * cfg.data.unlabeled_ratio)
        if count % trainer.world_size:
            raise UserError(
                f"data.unlabeled_ratio={cfg.data.unlabeled_ratio:g} gives {count} unlabeled samples"
                f" a step, which must divide over {trainer.world_size} devices: change it"
            )
    return trainer
