"""A run that is stopped at any moment and resumed gives the numbers of an undisturbed run."""

import csv
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from forked_runs import command_line, start_run
from helpers import TINY
from omegaconf import OmegaConf

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import write_kept
from kd_lightning.callbacks.save_epoch import SaveEpoch
from kd_lightning.records.jobs import is_locked
from kd_lightning.records.resumed_config import ADDED_KEYS, of_requeued_run
from kd_lightning.records.run_directory import holding

# everything that draws random numbers, dropout, augmentation and mixing, and a schedule
SETTING = [
    "method=dual_student",
    "data=synthetic",
    "data.num_train=96",
    "data.num_test=32",
    "data.batch_size=16",
    "data.size=32",
    "augmentation@data.augmentation=cutout",
    "mixing@data.mixing=mixup",
    "method.students.a.dropout=0.2",
    "trainer.max_epochs=4",
    "teacher.trainer.max_epochs=1",
    "teacher.check=warn",
    "hardware=cpu",
    "callbacks=quiet",
    "logger=none",
]


def outcome(directory: Path) -> tuple[list[dict], dict, dict]:
    """The results that must not depend on interruptions: rows, weights, metrics."""
    with (directory / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    weights = torch.load(directory / "last.ckpt", weights_only=True)["state_dict"]
    metrics = json.loads((directory / "metrics.json").read_text())
    for net in metrics["nets"].values():
        del net["throughput"]
    return rows, weights, metrics


def assert_same_outcome(a: Path, b: Path) -> None:
    (rows, weights, metrics), (rows_b, weights_b, metrics_b) = outcome(a), outcome(b)
    assert rows == rows_b
    assert weights.keys() == weights_b.keys()
    assert all(torch.equal(weights[name], weights_b[name]) for name in weights)
    assert metrics == metrics_b
    assert (a / "confidence.csv").read_bytes() == (b / "confidence.csv").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    outputs = tmp_path_factory.mktemp("undisturbed")
    return distill(*SETTING, f"outputs={outputs}", f"teacher.store={store}").directory


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_and_resumed_runs_end_as_undisturbed_ones(
    signum: int, undisturbed: Path, tmp_path: Path, store: Path
) -> None:
    directory = tmp_path / "run"
    words = [*SETTING, f"run_dir={directory}", f"outputs={tmp_path}", f"teacher.store={store}"]
    log = tmp_path / "log.txt"
    process = start_run(log, *words, "data.num_workers=0")
    while not (directory / "last.ckpt").exists():
        assert process.is_alive(), log.read_text()
        time.sleep(0.02)
    os.kill(process.pid, signum)
    process.join()
    printed = log.read_text()
    assert not (directory / "metrics.json").exists(), "killed too late to test anything"
    if signum == signal.SIGKILL:
        command = f"resume={directory}"
    else:
        assert process.exitcode == 128 + signum
        assert "Traceback" not in printed
        (command,) = re.findall(r"python -m kd_lightning\.run (\S+)", printed)
    assert distill(command).directory == directory
    assert_same_outcome(directory, undisturbed)


def test_a_run_resumes_from_an_older_epoch_too(
    undisturbed: Path, tmp_path: Path, store: Path
) -> None:
    directory = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(3, patch)
        patch.setattr(SaveEpoch, "pause", 1e9)
        patch.setattr("kd_lightning.callbacks.save_epoch.is_best_epoch", lambda trainer: False)
        with pytest.raises(Stop):
            distill(*SETTING, f"run_dir={directory}", f"teacher.store={store}")
    assert len((directory / "epochs.csv").read_text().splitlines()) == 2
    distill(f"resume={directory}")
    assert_same_outcome(directory, undisturbed)


def test_a_run_that_was_killed_between_its_last_checkpoint_and_its_tables_has_all_rows(
    undisturbed: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(undisturbed, tmp_path / "run")
    for path in (directory / "epochs.csv", directory / "confidence.csv"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:2]))
    (directory / "metrics.json").unlink()
    distill(f"resume={directory}")
    assert_same_outcome(directory, undisturbed)


@pytest.mark.parametrize(("epoch", "workers"), [(1, 0), (3, 0), (3, 1)])
def test_a_run_resumes_from_any_epoch_bit_for_bit(
    epoch: int, workers: int, undisturbed: Path, tmp_path: Path, store: Path
) -> None:
    directory = tmp_path / "run"
    loading = [f"data.num_workers={workers}", "data.resident=false"]
    with pytest.MonkeyPatch.context() as patch:
        stop_after(epoch, patch)
        patch.setattr(SaveEpoch, "pause", 0.0)
        with pytest.raises(Stop):
            distill(*SETTING, *loading, f"run_dir={directory}", f"teacher.store={store}")
    assert len((directory / "epochs.csv").read_text().splitlines()) == epoch + 1
    distill(f"resume={directory}")
    assert_same_outcome(directory, undisturbed)


def test_a_run_is_held_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def fit(*run: object) -> None:
        held.append(is_locked(tmp_path / "run" / ".lock"))
        raise Stop

    monkeypatch.setattr("kd_lightning.running.run.fit", fit)
    words = ["method=supervised", *TINY, f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(Stop):
        distill(*(word for word in words if not word.startswith("teacher")))
    assert held == [True]
    assert not is_locked(tmp_path / "run" / ".lock")


def test_the_words_of_a_run_that_slurm_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "lr=0.1"
    run = f"run_dir='{directory}'"
    words = ["--config-dir", "mine", "~callbacks.x", "method=kd", run, "allow=[my_nets]"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert of_requeued_run(words) == words  # it has not begun
    directory.mkdir()
    (directory / "config.yaml").touch()
    expected = ["--config-dir", "mine", "allow=[my_nets]", f"resume='{directory}'"]
    assert of_requeued_run(words) == expected
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert of_requeued_run(words) == words


def test_a_run_that_slurm_starts_again_goes_on(
    undisturbed: Path, tmp_path: Path, store: Path
) -> None:
    directory = tmp_path / "run"
    words = [*SETTING, f"run_dir={directory}", f"teacher.store={store}"]
    with pytest.MonkeyPatch.context() as patch:
        stop_after(2, patch)
        patch.setattr(SaveEpoch, "pause", 0.0)
        with pytest.raises(Stop):
            distill(*words)
    with holding(directory):
        done = command_line(tmp_path, f"resume={directory}")
    assert done.returncode == 2
    assert "another process is at the run in" in done.stderr
    done = command_line(tmp_path, *words, SLURM_RESTART_COUNT="1")
    assert done.returncode == 0, done.stderr
    assert_same_outcome(directory, undisturbed)


@pytest.mark.parametrize(
    ("val", "length"),
    [  # with a val part, epochs are resumed above
        (0.0, ["max_epochs=4"]),
        (0.0, ["max_epochs=9", "max_steps=16"]),
        (0.25, ["max_epochs=9", "max_steps=16"]),
    ],
)
def test_steps_and_epochs_resume_with_a_val_part_and_without(
    val: float, length: list[str], tmp_path: Path, store: Path
) -> None:
    words = [*SETTING, f"data.val_fraction={val}", f"teacher.store={store}"]
    words += [f"trainer.{word}" for word in length]
    stopped, ended = tmp_path / "in_the_middle", tmp_path / "after_the_last_epoch"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SaveEpoch, "pause", 0.0)
        whole = distill(*words, f"run_dir={tmp_path / 'whole'}").directory
        stop_after(2, patch)
        with pytest.raises(Stop):
            distill(*words, f"run_dir={stopped}")
    shutil.copytree(whole, ended)
    (ended / "metrics.json").unlink()
    for directory in (stopped, ended):
        distill(f"resume={directory}")
        assert_same_outcome(directory, whole)


class Stop(BaseException):
    pass


def stop_after(epochs: int, patch: pytest.MonkeyPatch) -> None:
    """Makes the next run die in the middle of the epoch after ``epochs`` finished ones."""
    from kd_lightning.methods.dual_student import DualStudent

    step = DualStudent.training_step

    def dying(self: DualStudent, batch: object, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == epochs and batch_idx == 2:
            raise Stop
        return step(self, batch, batch_idx)

    patch.setattr(DualStudent, "training_step", dying)


def test_more_epochs_may_be_asked_for(undisturbed: Path, tmp_path: Path, store: Path) -> None:
    directory = tmp_path / "run"
    constant = ["scheduler=none", "method.peer_ramp=0"]
    for run, epochs in ((directory, 2), (tmp_path / "whole", 4)):
        distill(*SETTING, *constant, f"trainer.max_epochs={epochs}", f"run_dir={run}",
                f"teacher.store={store}")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(Stop):
            distill(f"resume={directory}", "trainer.max_epochs=4")
    assert not (directory / "metrics.json").exists()  # it was finished with two epochs
    distill(f"resume={directory}")
    assert_same_outcome(directory, tmp_path / "whole")


def test_a_run_that_was_stopped_early_is_only_tested_again(tmp_path: Path, store: Path) -> None:
    words = [*SETTING, "callbacks=early_stopping", "callbacks.early_stopping.patience=2"]
    words += ["data.val_fraction=0.25", "optimizer.lr=1.0e-9", "trainer.max_epochs=9"]
    first = distill(*words, f"run_dir={tmp_path / 'run'}", f"teacher.store={store}")
    epochs = (first.directory / "epochs.csv").read_bytes()
    again = distill(f"resume={first.directory}", "evaluation.temperature_scaling=true")
    assert again.metrics["epochs"] == first.metrics["epochs"] == 3
    assert (first.directory / "epochs.csv").read_bytes() == epochs
    last = [result.metrics["nets"]["a"]["last"] for result in (first, again)]
    assert last[0] == last[1]


@pytest.mark.parametrize(
    "override",
    ["method.temperature=2", "seed=1", "optimizer.lr=1", "data.batch_size=8", "method=kd",
     "model@method.students.a=resnet20", "data.split_seed=4"],
)  # fmt: skip
def test_overrides_that_change_what_is_learnt_are_refused(override: str, undisturbed: Path) -> None:
    with pytest.raises(UserError, match="would change what the resumed run learns"):
        distill(f"resume={undisturbed}", override)


def test_data_on_the_device_give_the_same_numbers_bit_for_bit(
    undisturbed: Path, tmp_path: Path, store: Path
) -> None:
    resident = distill(*SETTING, "data.resident=true", f"run_dir={tmp_path / 'run'}",
                   f"teacher.store={store}").directory  # fmt: skip
    assert_same_outcome(resident, undisturbed)


def test_a_run_of_a_version_without_the_newest_keys_is_resumed(tmp_path: Path, store: Path) -> None:
    directory = tmp_path / "run"
    words = [*SETTING, "scheduler=none", "method.peer_ramp=0", f"teacher.store={store}"]
    distill(*words, "trainer.max_epochs=1", f"run_dir={directory}")
    old = OmegaConf.load(directory / "config.yaml")
    for section, keys in ADDED_KEYS.items():
        for key in keys:
            del old[section][key]
    write_kept(directory, {"config.yaml": OmegaConf.to_yaml(old)})
    assert distill(f"resume={directory}", "trainer.max_epochs=2").metrics["epochs"] == 2


def test_other_overrides_are_accepted(undisturbed: Path) -> None:
    before = outcome(undisturbed)
    distill(f"resume={undisturbed}", "hardware=auto", "logger=csv", "seed=0", "callbacks=quiet")
    assert outcome(undisturbed)[0] == before[0]


def test_other_data_are_refused(tmp_path: Path, store: Path) -> None:
    first = distill(*SETTING[:5], *SETTING[9:], "trainer.max_epochs=1", f"run_dir={tmp_path}/run",
                    f"teacher.store={store}")  # fmt: skip
    record = first.directory / "environment.json"
    text = record.read_text().replace('"fingerprint": "', '"fingerprint": "0')
    write_kept(first.directory, {"environment.json": text})
    with pytest.raises(UserError, match="the data changed after"):
        distill(f"resume={first.directory}", "trainer.max_epochs=2")


def test_a_run_without_the_newest_facts_of_the_data_is_resumed(tmp_path: Path, store: Path) -> None:
    first = distill(*SETTING[:5], *SETTING[9:], "trainer.max_epochs=1", f"run_dir={tmp_path}/run",
                    f"teacher.store={store}")  # fmt: skip
    path = first.directory / "config.yaml"
    older = OmegaConf.load(path)
    del older.task.shape, older.evaluation
    write_kept(first.directory, {"config.yaml": OmegaConf.to_yaml(older)})
    (first.directory / "metrics.json").unlink()
    assert distill(f"resume={first.directory}", "trainer.max_epochs=2").metrics["epochs"] == 2
