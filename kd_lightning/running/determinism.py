"""``hardware.deterministic``: equal bits in every run on the same kind of device."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.precision import allow_tf32
from kd_lightning.records.run_directory import read_config

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
FIXED_WORKSPACES = (":4096:8", ":16:8")  # with which cuBLAS gives equal bits; the first is faster
# Keys that must not be true in a deterministic run, with the reason.
REFUSED = {
    "hardware.compile": "a compiler times kernels and keeps the fastest",
    "hardware.compile_teacher": "a compiler times kernels and keeps the fastest",
    "trainer.benchmark": "cuDNN times its algorithms and keeps the fastest",
}


def use_determinism(cfg: DictConfig, on_gpu: bool) -> None:
    """Applies ``hardware.deterministic`` to this process: before CUDA starts, and before the
    Trainer is built, which forbids all other algorithms.

    Raises:
        UserError: another key contradicts it, or this process's cuBLAS can no longer be set.
    """
    deterministic = cfg.hardware.deterministic
    if deterministic:
        check_no_contradiction(cfg)
        if on_gpu:
            fix_workspace()
    allow_tf32(on_gpu and not deterministic)


def take_determinism(cfg: DictConfig, overrides: list[str]) -> None:
    """Sets ``hardware.deterministic`` of a command that resumes a deterministic run, unless the
    command names it. Otherwise ``cfg`` would look for the best precision of the GPU, and after this
    first use of the GPU a deterministic run is refused.
    """
    if any(word.startswith("hardware.deterministic=") for word in overrides):
        return
    with suppress(Damaged):  # whatever is wrong with the run is said by what loads it
        old = read_config(Path(str(cfg.resume)), "hardware")
        if old.hardware.get("deterministic") is True:
            cfg.hardware.deterministic = True


def check_no_contradiction(cfg: DictConfig) -> None:
    for key, reason in REFUSED.items():
        value = OmegaConf.select(cfg, key)
        if value not in (None, False, "auto"):
            raise UserError(
                f"hardware.deterministic=true does not support {key}={str(value).lower()}: "
                f"{reason} (set {key}=false)"
            )


def fix_workspace() -> None:
    """Fixes the buffers of cuBLAS by its environment variable, which processes that Lightning
    starts inherit.
    """
    asked = os.environ.get(WORKSPACE)
    if asked in FIXED_WORKSPACES:
        return
    if asked is not None:
        raise UserError(
            f"with hardware.deterministic=true the environment variable {WORKSPACE} must be one of "
            f"{', '.join(FIXED_WORKSPACES)}, got {asked}: change it, or unset it"
        )
    if torch.cuda.is_initialized():
        raise UserError(
            "hardware.deterministic=true must be set before this process uses a GPU, and it has "
            f"used one: start a new process, or set the environment variable {WORKSPACE}="
            f"{FIXED_WORKSPACES[0]} before"
        )
    os.environ[WORKSPACE] = FIXED_WORKSPACES[0]


def describe_arithmetic() -> dict[str, Any]:
    """The settings of this process that change results by rounding, for ``environment.json``."""
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": torch.backends.cudnn.allow_tf32,
    }
