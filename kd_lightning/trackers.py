"""Experiment trackers that need a decision before they can start."""

import netrc
import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from rich.console import Console


class JobLogger(WandbLogger):
    """Ends its wandb run with the job, so that the next job of a process gets one of its own."""

    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(status != "success"))


def wandb_logger(
    *,
    save_dir: str | Path,
    project: str,
    name: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    job_type: str | None = None,
    mode: Literal["online", "offline", "disabled"] | None = None,
    config: dict[str, Any] | None = None,
) -> WandbLogger:
    """A Weights & Biases logger that falls back to offline, and says so, where there is no key.

    Args:
        save_dir: the run directory; its name is the run's, unless ``name`` is given.
        mode: "online", "offline", "disabled"; None: online if there is a key.
        config: of the run, resolved.
    """
    settings: dict[str, Any] = {"config": config}
    if mode is None and "WANDB_MODE" not in os.environ and not has_key():
        mode = "offline"
        Console(stderr=True).print(
            "wandb: no key found, so this run is written offline; upload it later with "
            f"'wandb sync {save_dir}/wandb/offline-run-*', or log in with 'wandb login'",
            soft_wrap=True,
            highlight=False,
        )
    if mode is not None:
        settings["mode"] = mode
    return JobLogger(
        save_dir=str(save_dir),
        project=project,
        name=name or Path(save_dir).name,
        group=group,
        tags=list(tags or []),
        job_type=job_type,
        **settings,
    )


def has_key() -> bool:
    """Whether there is a wandb key: in the environment, or where ``wandb login`` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
