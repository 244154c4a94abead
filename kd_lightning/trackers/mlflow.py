"""MLflow: one run for each of ours, also after a resume, in a database that all runs share."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from kd_lightning.trackers.about import About, remember, remembered

STATUSES = {"success": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class RunLogger(MLFlowLogger):
    """Lightning's logger, which the run directory remembers, and which ends as the run does.

    Args:
        directory: of the run.
        config: of the run, resolved: the parameters of a new run.
    """

    def __init__(self, *, directory: Path, config: Mapping[str, Any], **logger: Any) -> None:
        super().__init__(run_id=remembered(directory, "mlflow"), **logger)
        self.directory = directory
        self.config = config

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._initialized:
            return super().experiment
        client, is_new = self._mlflow_client, self._run_id is None
        if is_new and client.get_experiment_by_name(self._experiment_name) is None:
            from mlflow.exceptions import MlflowException

            with suppress(MlflowException):  # another job may make it at this very moment
                client.create_experiment(self._experiment_name, self._artifact_location)
        super().experiment  # noqa: B018
        if is_new:
            remember(self.directory, "mlflow", self._run_id)
            self.log_hyperparams(flat(self.config))
        else:
            client.update_run(self._run_id, status="RUNNING")
        return client

    def keep(self, files: list[Path]) -> None:
        for path in files:
            self.experiment.log_artifact(self.run_id, str(path))

    def finalize(self, status: str = "success") -> None:
        super().finalize(STATUSES[status])


def mlflow_logger(
    *,
    save_dir: str | Path,
    experiment: str,
    tracking_uri: str,
    artifacts: str | None = None,
    config: dict[str, Any] | None = None,
    about: About | None = None,
) -> MLFlowLogger:
    """An MLflow logger.

    Args:
        save_dir: the run directory, which remembers the run's id and name.
        experiment: that the run is listed under.
        tracking_uri: a database or a server.
        artifacts: where files are kept; None: where the server says.
        config: of the run, resolved.
        about: the run; None: it is known by its directory alone.
    """
    import mlflow  # noqa: F401  # sets the level of its own messages, which tell a person nothing

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    directory = Path(save_dir)
    about = about or About(directory.name)
    name = remembered(directory, "name") or about.name
    remember(directory, "name", name)
    told = {"group": about.group, "job_type": about.job_type, "tags": ", ".join(about.tags)}
    with one_at_a_time(tracking_uri):
        return RunLogger(
            directory=directory,
            config=config or {},
            experiment_name=experiment,
            run_name=name,
            tracking_uri=tracking_uri,
            artifact_location=artifacts,
            tags={key: value for key, value in told.items() if value},
        )


@contextmanager
def one_at_a_time(tracking_uri: str) -> Iterator[None]:
    """Holds a database that is a file: of two jobs that begin a new one at once, one would fail."""
    kind, _, path = tracking_uri.partition(":///")
    if kind != "sqlite":
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Key -> value, each key as a command line has it: "method.temperature"."""
    plain = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            plain |= flat(value, f"{above}{name}.")
        else:
            plain[f"{above}{name}"] = value
    return plain
