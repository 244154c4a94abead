"""MLflow, with its real database."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked_runs import start_run
from mlflow import MlflowClient
from mlflow.entities import Run
from sqlalchemy import event
from sqlalchemy.engine import Engine
from written_runs import read_all_wandb

from kd_lightning import distill
from kd_lightning.base.interrupts import Interrupted
from kd_lightning.running import run
from kd_lightning.trackers.mlflow import flat, mlflow_logger

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture
def runs_in() -> Callable[[Path], list[Run]]:
    def runs(outputs: Path) -> list[Run]:
        client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
        (experiment,) = (e for e in client.search_experiments() if e.name == "kd_lightning")
        return client.search_runs([experiment.experiment_id])

    return runs


def test_keys_are_those_of_the_command_line() -> None:
    config = {"seed": 0, "method": {"temperature": 2.0, "students": {}}, "list": [{"a": 1}]}
    expected = {"seed": 0, "method.temperature": 2.0, "method.students": {}, "list": [{"a": 1}]}
    assert flat(config) == expected


def test_a_run_is_logged_completely_and_a_resumed_run_is_the_same_mlflow_run(
    runs_in: Callable, small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    result = distill(*small, "logger=mlflow", f"outputs={tmp_path}")
    (logged,) = runs_in(tmp_path)
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name.startswith("method=supervised data=synthetic data.num_train=96")
    assert logged.data.tags.items() >= {"job_type": "supervised", "tags": "synthetic"}.items()
    assert logged.data.params["data.num_train"] == "96"
    assert logged.data.params["optimizer._target_"].startswith("torch.optim")
    tested = result.metrics["nets"]["student"]["test"]["accuracy"]
    assert logged.data.metrics["test/student/accuracy"] == pytest.approx(tested)
    files = {path.name for path in Path(logged.info.artifact_uri).iterdir()}
    assert files == {*("calibration.json", "config.yaml", "metrics.json", "table.csv", "table.md")}
    assert tmp_path in Path(logged.info.artifact_uri).parents

    # the resumed run has other parameters, and MLflow does not allow parameters to change
    distill(f"resume={result.directory}", "trainer.max_epochs=3")
    (again,) = runs_in(tmp_path)
    assert (again.info.run_id, again.info.status) == (logged.info.run_id, "FINISHED")
    assert again.data.metrics["epoch"] == 2
    assert capsys.readouterr().err == ""


def test_a_run_that_fails_after_the_fit_has_failed(
    runs_in: Callable, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def test_run(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(run, "test_run", test_run)
    with pytest.raises(RuntimeError):
        distill(*small, "logger=mlflow", f"outputs={tmp_path}")
    (logged,) = runs_in(tmp_path)
    assert logged.info.status == "FAILED"
    assert "val/student/accuracy" in logged.data.metrics


def test_a_run_that_is_stopped_and_resumed_is_one_run_in_every_tracker(
    runs_in: Callable, small: list[str], tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    log = tmp_path / "log.txt"
    stopped = start_run(
        log, *small, "logger=[mlflow,wandb]", "trainer.max_epochs=20", f"outputs={tmp_path}",
        f"run_dir={directory}",
    )  # fmt: skip
    while not (directory / "epochs.csv").exists():
        assert stopped.is_alive(), log.read_text()[-2000:]
        time.sleep(0.02)
    os.kill(stopped.pid, signal.SIGTERM)
    stopped.join()
    assert stopped.exitcode == 128 + signal.SIGTERM
    (logged,) = runs_in(tmp_path)
    assert logged.info.status == "KILLED"
    (first,) = read_all_wandb(directory)
    assert first.exit_code == 130

    distill(f"resume={directory}")
    (again,) = runs_in(tmp_path)
    assert (again.info.run_id, again.info.status) == (logged.info.run_id, "FINISHED")
    assert again.data.metrics["epoch"] == 19
    first, second = read_all_wandb(directory)
    assert (second.about.run_id, second.exit_code) == (first.about.run_id, 0)


def test_a_signal_during_a_transaction_leaves_no_locked_database(
    runs_in: Callable, small: list[str], tmp_path: Path
) -> None:
    """Fixed bug: the run stayed RUNNING, and its database stayed locked until the process ended."""
    metrics = []

    def stop(connection: Any, cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO metrics"):
            metrics.append(statement)
            if len(metrics) == 2:
                signal.raise_signal(signal.SIGTERM)

    event.listen(Engine, "after_cursor_execute", stop)
    try:
        with pytest.raises(Interrupted) as caught:
            distill(*small, "logger=mlflow", f"outputs={tmp_path}")
        assert len(metrics) == 2
    finally:
        event.remove(Engine, "after_cursor_execute", stop)
    (logged,) = runs_in(tmp_path)
    assert logged.info.status == "KILLED"
    assert caught.value.advice.startswith("resume with: python -m kd_lightning.run resume=")


def test_a_run_that_is_stopped_during_its_test_is_killed_and_can_be_resumed(
    runs_in: Callable, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(run, "test_run", lambda *_: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted) as caught:
            distill(*small, "logger=mlflow", f"outputs={tmp_path}", f"run_dir={directory}")
    assert caught.value.advice == f"resume with: python -m kd_lightning.run resume={directory}"
    (logged,) = runs_in(tmp_path)
    assert logged.info.status == "KILLED"
    assert distill(f"resume={directory}").metrics["epochs"] == 2
    (again,) = runs_in(tmp_path)
    assert (again.info.run_id, again.info.status) == (logged.info.run_id, "FINISHED")


def test_two_runs_may_begin_a_database_at_once(runs_in: Callable, tmp_path: Path) -> None:
    program = """if True:
        import sys
        from kd_lightning.trackers.mlflow import mlflow_logger
        outputs, seed = sys.argv[1:]
        logger = mlflow_logger(
            save_dir=f"{outputs}/{seed}", experiment="kd_lightning", config={"seed": seed},
            tracking_uri=f"sqlite:///{outputs}/mlflow.db", artifacts=f"{outputs}/mlflow",
        )
        logger.experiment
        logger.finalize("success")
    """
    (tmp_path / "begins.py").write_text(program)
    both = []
    for seed in "01":
        (tmp_path / seed).mkdir()
        words = [str(tmp_path), seed]
        log = tmp_path / f"{seed}.log"
        both.append(start_run(log, *words, program=str(tmp_path / "begins.py")))
    for process in both:
        process.join()
    said = [(tmp_path / f"{seed}.log").read_text() for seed in "01"]
    assert [process.exitcode for process in both] == [0, 0], said
    assert {one.info.status for one in runs_in(tmp_path)} == {"FINISHED"}
    assert {one.data.params["seed"] for one in runs_in(tmp_path)} == {"0", "1"}


def test_a_server_that_is_down_is_asked_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    mlflow_logger(save_dir=tmp_path, experiment="e", tracking_uri="http://127.0.0.1:9")
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES

    assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 3
