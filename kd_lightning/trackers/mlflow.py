"""MLflow: each run is one MLflow run, even if it is resumed; all runs share one database."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from kd_lightning.trackers.run_info import RunInfo, load_value, save_value

# Of a request, seconds apart. MLflow's own 7 retries would stop a run for minutes where a server is
# down, before the logger is left out.
RETRIES = "3"
STATUSES = {"success": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class RunLogger(MLFlowLogger):
    """Lightning's logger. It stores its run id in the run directory, so a resumed run continues the
    same MLflow run, and it is finalized with the status of the run.

    Args:
        directory: of the run.
        config: of the run, resolved. It is logged as the parameters of a new MLflow run.
    """

    def __init__(self, *, directory: Path, config: Mapping[str, Any], **logger: Any) -> None:
        super().__init__(run_id=load_value(directory, "mlflow"), **logger)
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

            with suppress(MlflowException):  # another job may create it at the same time
                client.create_experiment(self._experiment_name, self._artifact_location)
        super().experiment  # noqa: B018
        if is_new:
            save_value(self.directory, "mlflow", self._run_id)
            self.log_hyperparams(flat(self.config))
        else:
            client.update_run(self._run_id, status="RUNNING")
        return client

    def log_files(self, files: list[Path]) -> None:
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
    run_info: RunInfo | None = None,
) -> MLFlowLogger:
    """An MLflow logger.

    Args:
        save_dir: the run directory, which stores the run's id and name.
        experiment: the MLflow experiment of the run.
        tracking_uri: a database or a server.
        artifacts: where files are stored; None: the server decides.
        config: of the run, resolved.
        run_info: how the run appears; None: with the name of its directory.
    """
    import mlflow  # noqa: F401  # imported first, because it sets the level of its own messages

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
    directory = Path(save_dir)
    run_info = run_info or RunInfo(directory.name)
    name = load_value(directory, "name") or run_info.name
    save_value(directory, "name", name)
    tags = {
        "group": run_info.group,
        "job_type": run_info.job_type,
        "tags": ", ".join(run_info.tags),
    }
    with one_at_a_time(tracking_uri):
        return RunLogger(
            directory=directory,
            config=config or {},
            experiment_name=experiment,
            run_name=name,
            tracking_uri=tracking_uri,
            artifact_location=artifacts,
            tags={key: value for key, value in tags.items() if value},
        )


@contextmanager
def one_at_a_time(tracking_uri: str) -> Iterator[None]:
    """Locks a database that is a file. Without the lock, one of two jobs that create the same
    database at the same time would fail.
    """
    kind, _, path = tracking_uri.partition(":///")
    if kind != "sqlite":
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Key -> value, with keys as on the command line: "method.temperature"."""
    plain = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            plain |= flat(value, f"{prefix}{name}.")
        else:
            plain[f"{prefix}{name}"] = value
    return plain
