"""A logger that really fails: the run prints one message and ends as if it had no logger."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyExperiment
from written_runs import read_wandb

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.trackers.safe_logger import SafeLogger, closing_loggers


def failure_messages(capsys: pytest.CaptureFixture) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if "has failed and is left out, the run continues" in line]


def safe_csv_logger(folder: Path) -> SafeLogger:
    return SafeLogger("csv", lambda: CSVLogger(folder, name="csv"))


def test_a_working_logger_gets_every_call_and_stays_open_until_the_run_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    logger = safe_csv_logger(tmp_path)
    with closing_loggers([logger]):
        logger.log_metrics({"train/a/hard": 1.0}, step=1)
        logger.finalize("success")  # Lightning does this after the fit
        logger.log_metrics({"test/a/accuracy": 0.5}, step=2)
    rows = (tmp_path / "csv/version_0/metrics.csv").read_text().splitlines()
    assert rows == ["step,test/a/accuracy,train/a/hard", "1,,1.0", "2,0.5,"]
    assert (logger.name, logger.version, logger.save_dir) == ("csv", 0, str(tmp_path))
    assert failure_messages(capsys) == []


def disk_full(folder: Path) -> None:
    (folder / "csv/version_0/metrics.csv").unlink()
    (folder / "csv/version_0/metrics.csv").symlink_to("/dev/full")


def folder_missing(folder: Path) -> None:
    shutil.rmtree(folder / "csv")
    (folder / "csv").write_text("a file")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [(disk_full, "No space left on device"), (folder_missing, "Not a directory")],
)
def test_a_failing_logger_is_reported_once_and_not_used_again(
    break_it: Callable[[Path], None], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    logger = safe_csv_logger(tmp_path)
    with closing_loggers([logger]):
        logger.log_metrics({"train/a/hard": 1.0}, step=1)
        logger.save()
        break_it(tmp_path)
        for step in range(2, 5):
            logger.log_metrics({"train/a/hard": 1.0}, step=step)
            logger.save()
    (sentence,) = failure_messages(capsys)
    assert sentence.startswith("logger=csv has failed and is left out, the run continues: [Errno ")
    assert reason in sentence
    assert isinstance(logger.experiment, DummyExperiment)
    assert (logger.name, logger.version, logger.save_dir) == (None, None, None)


def test_a_rank_that_logs_nothing_makes_no_logger() -> None:
    logger = SafeLogger("csv", None)
    logger.log_metrics({"x": 1.0}, step=0)
    logger.log_files([])
    logger.close("success")
    assert isinstance(logger.experiment, DummyExperiment)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "success"),
        (ValueError, "failed"),
        (KeyboardInterrupt, "killed"),
        (KeyError, "killed"),
    ],
)
def test_a_logger_is_closed_with_the_status_of_the_run(
    error: type[BaseException] | None, status: str
) -> None:
    class Recorder(CSVLogger):
        def finalize(self, status: str) -> None:
            statuses.append(status)

    statuses: list[str] = []
    logger = SafeLogger("x", lambda: Recorder("nowhere"))
    if error is None:
        with closing_loggers([logger], KeyError):
            pass
    else:
        with pytest.raises(error), closing_loggers([logger], KeyError):
            raise error
    assert statuses == [status]


def test_a_user_error_while_making_a_logger_is_raised() -> None:
    def make() -> CSVLogger:
        raise UserError("logger.csv must be …")

    with pytest.raises(UserError, match="must be"):
        SafeLogger("csv", make)

    def missing_package() -> CSVLogger:
        raise ModuleNotFoundError("No module named 'comet_ml'")

    with pytest.raises(UserError, match=r"logger=comet needs .* No module named 'comet_ml'"):
        SafeLogger("comet", missing_package)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_reported_before_anything_is_written(
    name: str, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"logger={name} needs {name}: pip install .*\[{name}\]"):
        distill(*small, f"logger={name}", f"outputs={tmp_path}/outputs")
    assert not (tmp_path / "outputs").exists()


# Whole runs


def blocked_folder(name: str) -> Callable[[Path], None]:
    return lambda outputs: (outputs / "run" / name).write_text("a file, where a folder should be")


def broken_database(outputs: Path) -> None:
    (outputs / "mlflow.db").write_text("not a database, but long enough to look like one" * 9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mlflow's own
@pytest.mark.parametrize(
    ("name", "breaks"),
    [
        ("csv", blocked_folder("csv")),
        ("tensorboard", blocked_folder("tensorboard")),
        ("mlflow", broken_database),
    ],
)
def test_a_run_continues_without_a_failing_logger_and_with_the_others(
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
    (sentence,) = failure_messages(capsys)
    assert sentence.startswith(f"logger={name} has failed")
    assert (result.directory / "metrics.json").exists()
    assert any(path.is_file() for path in (result.directory / other).rglob("*"))


@pytest.mark.slow
def test_a_missing_network_stops_no_run_and_the_next_run_is_tracked(
    small: list[str], tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    wandb.teardown()  # wandb reads the environment only once
    with monkeypatch.context() as patched:
        patched.setenv("WANDB_API_KEY", "0" * 40)
        patched.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        patched.setenv("WANDB_INIT_TIMEOUT", "1")
        result = distill(*small, "logger=[wandb,csv]", "logger.wandb.mode=online",
                         f"outputs={tmp_path}/a")  # fmt: skip
    (sentence,) = failure_messages(capsys)
    assert sentence.startswith("logger=wandb has failed and is left out, the run continues: ")
    assert "127.0.0.1:9" in sentence or "timed out" in sentence
    assert (result.directory / "metrics.json").exists()
    assert wandb.run is None
    wandb.teardown()
    following = distill(*small, "logger=wandb", f"outputs={tmp_path}/b")
    assert read_wandb(following.directory).exit_code == 0
