"""Weights & Biases: each run is one wandb run, even if it is resumed; offline without a key."""

import netrc
import os
import secrets
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from rich.console import Console

from kd_lightning.base.errors import UserError
from kd_lightning.trackers.run_info import RunInfo, load_value, save_value

EXIT_CODES = {"success": 0, "failed": 1, "killed": 130}


class RunLogger(WandbLogger):
    """Finishes its wandb run when the run ends: the next run of this process gets a new one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        del self._wandb_init["anonymous"]  # wandb warns about this setting for any value

    def log_files(self, files: list[Path]) -> None:
        import wandb

        artifact = wandb.Artifact(f"results-{self.experiment.id}", type="results")
        for path in files:
            # skip_cache: a copy would stay in the user's cache
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
    run_info: RunInfo | None = None,
) -> WandbLogger:
    """A Weights & Biases logger. Without a key it logs offline, and says so.

    Args:
        save_dir: the run directory, which stores the run's id and name.
        name, group, job_type: None: those of ``run_info``.
        tags: in addition to those of ``run_info``.
        mode: "online", "offline", "disabled"; None: online if there is a key.
        upload_timeout: seconds that the end of a run may wait for the network; 0: no limit.
        config: of the run, resolved.
        run_info: how the run appears; None: with the name of its directory.
    """
    directory = Path(save_dir)
    run_info = run_info or RunInfo(directory.name)
    tags = list(dict.fromkeys([*(tags or []), *run_info.tags]))
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
    # an agent of a W&B sweep sets the id of its run; a job of our sweeps must not use that id
    agent_id = None if run_info.group else os.environ.get("WANDB_RUN_ID")
    id = agent_id or load_value(directory, "wandb") or secrets.token_hex(4)
    name = name or load_value(directory, "name") or run_info.name
    save_value(directory, "wandb", id)
    save_value(directory, "name", name)
    return RunLogger(
        save_dir=str(directory),
        project=project,
        id=id,
        name=name,
        group=group or run_info.group,
        job_type=job_type or run_info.job_type,
        tags=tags,
        settings={"finish_timeout": upload_timeout},
        **settings,
    )


# W&B's own server, by its present and its earlier name, with which keys are kept too
OF_CLOUD = ("api.forge.coreweave.com", "api.wandb.ai")


def check_settings(**settings: Any) -> None:
    """Raises ``UserError`` for settings that wandb refuses."""
    import wandb

    try:
        wandb.Settings(**settings)
    except (wandb.errors.UsageError, ValueError) as error:
        # only the part of pydantic's message that says what is wrong
        message = str(error).partition("Value error, ")[2] or str(error)
        raise UserError(f"logger.wandb: {message.partition(' [type=')[0]}") from error


def has_key() -> bool:
    """Whether there is a wandb key: in the environment, or in the file of ``wandb login``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    # also of a server of one's own, whose address ``wandb login --host`` keeps, with its port
    url = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    server = urlsplit(url).netloc
    path = os.environ.get("NETRC") or Path.home() / ".netrc"
    try:  # given the path, Python does not ask who else may read it; nor does wandb
        logins = netrc.netrc(path)
        servers = OF_CLOUD if server in OF_CLOUD else [server]
        return any(logins.authenticators(name) is not None for name in servers)
    except (OSError, netrc.NetrcParseError):
        return False
