"""Experiment trackers that need a decision before they can start."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from rich.console import Console


def wandb_logger(
    *,
    save_dir: str | Path,
    project: str,
    name: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    job_type: str | None = None,
    mode: str | None = None,
) -> WandbLogger:
    """A Weights & Biases logger that falls back to offline, and says so, where there is no key.

    Args:
        save_dir: the run directory; its name is the run's, unless ``name`` is given.
        mode: "online", "offline", "disabled"; None: online if there is a key.
    """
    mode = mode or os.environ.get("WANDB_MODE")
    if mode is None and not _has_key():
        mode = "offline"
        Console(stderr=True).print(
            "wandb: no key found, so this run is written offline; upload it later with "
            f"'wandb sync {save_dir}/wandb/offline-run-*', or log in with 'wandb login'"
        )
    settings: dict[str, Any] = {"mode": mode} if mode else {}
    return WandbLogger(
        save_dir=str(save_dir),
        project=project,
        name=name or Path(save_dir).name,
        group=group,
        tags=list(tags or []),
        job_type=job_type,
        **settings,
    )


def _has_key() -> bool:
    import wandb

    return bool(os.environ.get("WANDB_API_KEY") or wandb.Api is None or wandb.api.api_key)
