"""Weights & Biases: one run for each of ours, also after a resume, and offline without a key."""

import netrc
import os
import secrets
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from rich.console import Console

from kd_lightning.base.errors import UserError
from kd_lightning.trackers.about import About, remember, remembered

EXIT_CODES = {"success": 0, "failed": 1, "killed": 130}


class RunLogger(WandbLogger):
    """Ends its wandb run with ours, so that the next one of this process gets one of its own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        del self._wandb_init["anonymous"]  # wandb warns of it, whatever its value

    def keep(self, files: list[Path]) -> None:
        import wandb

        artifact = wandb.Artifact(f"results-{self.experiment.id}", type="results")
        for path in files:
            # where they are: a copy would stay behind in the person's cache
            artifact.add_file(str(path.resolve()), skip_cache=True, policy="immutable")
        self.experiment.log_artifact(artifact)

    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=EXIT_CODES[status])


def wandb_logger(
    *,
    save_dir: str | Path,
    project: str,
    name: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    job_type: str | None = None,
    mode: Literal["online", "offline", "disabled"] | None = None,
    upload_timeout: float = 600.0,
    config: dict[str, Any] | None = None,
    about: About | None = None,
) -> WandbLogger:
    """A Weights & Biases logger that falls back to offline, and says so, where there is no key.

    Args:
        save_dir: the run directory, which remembers the run's id and name.
        name, group, job_type: None: those of ``about``.
        tags: beside those of ``about``.
        mode: "online", "offline", "disabled"; None: online if there is a key.
        upload_timeout: seconds that the end of a run may wait for the network; 0: no limit.
        config: of the run, resolved.
        about: the run; None: it is known by its directory alone.
    """
    directory = Path(save_dir)
    about = about or About(directory.name)
    tags = list(dict.fromkeys([*(tags or []), *about.tags]))
    check_settings(project=project, run_tags=tags)
    settings: dict[str, Any] = {"config": config}
    if mode is None and "WANDB_MODE" not in os.environ and not has_key():
        mode = "offline"
        Console(stderr=True).print(
            "wandb: no key found, so this run is written offline; upload it later with "
            f"'wandb sync {save_dir}/wandb/offline-run-*', or log in with 'wandb login'",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    if mode is not None:
        settings["mode"] = mode
    # an agent of a W&B sweep has given its run an id already; ours give each job one of its own
    given = None if about.group else os.environ.get("WANDB_RUN_ID")
    id = given or remembered(directory, "wandb") or secrets.token_hex(4)
    name = name or remembered(directory, "name") or about.name
    remember(directory, "wandb", id)
    remember(directory, "name", name)
    return RunLogger(
        save_dir=str(directory),
        project=project,
        id=id,
        name=name,
        group=group or about.group,
        job_type=job_type or about.job_type,
        tags=tags,
        settings={"finish_timeout": upload_timeout},
        **settings,
    )


def check_settings(**settings: Any) -> None:
    """Raises ``UserError`` for values that wandb refuses."""
    import wandb

    try:
        wandb.Settings(**settings)
    except (wandb.errors.UsageError, ValueError) as error:
        # of pydantic's several lines, the one that says what is wrong
        said = str(error).partition("Value error, ")[2] or str(error)
        raise UserError(f"logger.wandb: {said.partition(' [type=')[0]}") from error


def has_key() -> bool:
    """Whether there is a wandb key: in the environment, or where ``wandb login`` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
