"""A logger that fails, really: the run is told once, and ends as if it had none."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyExperiment
from written_runs import read_wandb

from kd_lightning.base.errors import UserError
from kd_lightning.run import distill
from kd_lightning.trackers.guard import Guard, ended


def told(capsys: pytest.CaptureFixture) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if "has failed and is left out, the run goes on" in line]


def csv_guard(folder: Path) -> Guard:
    return Guard("csv", lambda: CSVLogger(folder, name="csv"))


def test_a_logger_that_works_is_handed_everything_and_ended_only_by_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    guard = csv_guard(tmp_path)
    with ended([guard]):
        guard.log_metrics({"train/a/hard": 1.0}, step=1)
        guard.finalize("success")  # Lightning, after the fit
        guard.log_metrics({"test/a/accuracy": 0.5}, step=2)
    rows = (tmp_path / "csv/version_0/metrics.csv").read_text().splitlines()
    assert rows == ["step,test/a/accuracy,train/a/hard", "1,,1.0", "2,0.5,"]
    assert (guard.name, guard.version, guard.save_dir) == ("csv", 0, str(tmp_path))
    assert told(capsys) == []


def disk_full(folder: Path) -> None:
    (folder / "csv/version_0/metrics.csv").unlink()
    (folder / "csv/version_0/metrics.csv").symlink_to("/dev/full")


def folder_gone(folder: Path) -> None:
    shutil.rmtree(folder / "csv")
    (folder / "csv").write_text("a file")


@pytest.mark.parametrize(
    ("happens", "reason"),
    [(disk_full, "No space left on device"), (folder_gone, "Not a directory")],
)
def test_a_failure_in_the_middle_is_told_once_and_nothing_more_is_tried(
    happens: Callable[[Path], None], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    guard = csv_guard(tmp_path)
    with ended([guard]):
        guard.log_metrics({"train/a/hard": 1.0}, step=1)
        guard.save()
        happens(tmp_path)
        for step in range(2, 5):
            guard.log_metrics({"train/a/hard": 1.0}, step=step)
            guard.save()
    (sentence,) = told(capsys)
    assert sentence.startswith("logger=csv has failed and is left out, the run goes on: [Errno ")
    assert reason in sentence
    assert isinstance(guard.experiment, DummyExperiment)
    assert (guard.name, guard.version, guard.save_dir) == (None, None, None)


def test_a_rank_that_logs_nothing_makes_nothing() -> None:
    guard = Guard("csv", None)
    guard.log_metrics({"x": 1.0}, step=0)
    guard.keep([])
    guard.end("success")
    assert isinstance(guard.experiment, DummyExperiment)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "success"),
        (ValueError, "failed"),
        (KeyboardInterrupt, "killed"),
        (KeyError, "killed"),
    ],
)
def test_what_became_of_the_run_is_told(error: type[BaseException] | None, status: str) -> None:
    class Witness(CSVLogger):
        def finalize(self, status: str) -> None:
            seen.append(status)

    seen: list[str] = []
    guard = Guard("x", lambda: Witness("nowhere"))
    if error is None:
        with ended([guard], KeyError):
            pass
    else:
        with pytest.raises(error), ended([guard], KeyError):
            raise error
    assert seen == [status]


def test_a_person_s_mistake_is_refused() -> None:
    def make() -> CSVLogger:
        raise UserError("logger.csv must be …")

    with pytest.raises(UserError, match="must be"):
        Guard("csv", make)

    def needs() -> CSVLogger:
        raise ModuleNotFoundError("No module named 'comet_ml'")

    with pytest.raises(UserError, match=r"logger=comet needs .* No module named 'comet_ml'"):
        Guard("comet", needs)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_extra_is_named_before_anything_is_written(
    name: str, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"logger={name} needs {name}: pip install .*\[{name}\]"):
        distill(*small, f"logger={name}", f"outputs={tmp_path}/outputs")
    assert not (tmp_path / "outputs").exists()


# Whole runs


def no_folder(name: str) -> Callable[[Path], None]:
    return lambda outputs: (outputs / "run" / name).write_text("a file, where a folder should be")


def no_database(outputs: Path) -> None:
    (outputs / "mlflow.db").write_text("no database at all, but long enough to look like one" * 9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mlflow's own
@pytest.mark.parametrize(
    ("name", "breaks"),
    [
        ("csv", no_folder("csv")),
        ("tensorboard", no_folder("tensorboard")),
        ("mlflow", no_database),
    ],
)
def test_a_run_goes_on_without_a_logger_that_fails_and_with_the_others(
    name: str,
    breaks: Callable[[Path], None],
    small: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / "run").mkdir()
    breaks(tmp_path)
    other = "csv" if name != "csv" else "tensorboard"
    result = distill(*small, f"logger=[{name},{other}]", f"outputs={tmp_path}",
                     f"run_dir={tmp_path}/run")  # fmt: skip
    (sentence,) = told(capsys)
    assert sentence.startswith(f"logger={name} has failed")
    assert (result.directory / "metrics.json").exists()
    assert any(path.is_file() for path in (result.directory / other).rglob("*"))


@pytest.mark.slow
def test_a_network_that_is_not_there_stops_nothing_and_the_next_run_is_tracked(
    small: list[str], tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    wandb.teardown()  # it reads the environment once
    with monkeypatch.context() as patched:
        patched.setenv("WANDB_API_KEY", "0" * 40)
        patched.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        patched.setenv("WANDB_INIT_TIMEOUT", "1")
        result = distill(*small, "logger=[wandb,csv]", "logger.wandb.mode=online",
                         f"outputs={tmp_path}/a")  # fmt: skip
    (sentence,) = told(capsys)
    assert sentence.startswith("logger=wandb has failed and is left out, the run goes on: ")
    assert "127.0.0.1:9" in sentence or "timed out" in sentence
    assert (result.directory / "metrics.json").exists()
    assert wandb.run is None
    wandb.teardown()
    following = distill(*small, "logger=wandb", f"outputs={tmp_path}/b")
    assert read_wandb(following.directory).exit_code == 0
