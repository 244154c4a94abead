import csv
import errno
import time
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint

from kd_lightning.callbacks.best_students import BestStudents
from kd_lightning.callbacks.save_epoch import SaveEpoch, is_last


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SaveEpoch, "pause", 0.0)


class FakeTrainer(SimpleNamespace):
    """A trainer at the end of an epoch. Its checkpoint holds only the number of the epoch."""

    full_disk = False

    def __init__(
        self, epoch: int, *, first: bool = True, done: bool = False, **metrics: float
    ) -> None:
        progress = SimpleNamespace(current=SimpleNamespace(processed=epoch + 1))
        super().__init__(
            should_stop=done,
            max_epochs=100,
            max_steps=-1,
            fit_loop=SimpleNamespace(epoch_progress=progress),
            strategy=SimpleNamespace(broadcast=lambda value: value),
            callbacks=[],
            current_epoch=epoch,
            global_step=10 * (epoch + 1),
            is_global_zero=first,
            callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
        )

    def save_checkpoint(self, path: Path) -> None:
        if self.is_global_zero:
            path.write_text(str(self.current_epoch))
        if self.full_disk:
            raise OSError(errno.ENOSPC, "No space left on device")


METHOD = SimpleNamespace(epoch_tables=dict)


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "epochs.csv").read_text().splitlines()))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_it_is_a_checkpoint_callback_because_lightning_calls_these_last() -> None:
    assert issubclass(SaveEpoch, Checkpoint)


def test_each_epoch_writes_a_row_and_a_checkpoint(tmp_path: Path) -> None:
    callback = SaveEpoch(tmp_path)
    for epoch in range(3):
        callback.on_train_epoch_end(FakeTrainer(epoch, accuracy=epoch / 4), METHOD)
        assert (tmp_path / "last.ckpt").read_text() == str(epoch)
        assert len(rows(tmp_path)) == epoch + 1
    last = rows(tmp_path)[-1]
    assert (last["epoch"], last["step"], float(last["accuracy"])) == ("2", "30", 0.5)
    assert (tmp_path / "previous.ckpt").read_text() == "1"
    assert names(tmp_path) == {"last.ckpt", "previous.ckpt", "epochs.csv", "SHA256SUMS"}


def test_between_the_first_and_the_last_epoch_it_writes_at_most_once_per_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = SaveEpoch(tmp_path)
    monkeypatch.setattr(callback, "pause", 1.0)
    written = []
    for epoch, now in enumerate([100.0, 100.5, 101.0, 101.9, 102.1, 102.2]):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        callback.on_train_epoch_end(FakeTrainer(epoch, done=epoch == 5, loss=1.0), METHOD)
        written.append((int((tmp_path / "last.ckpt").read_text()), len(rows(tmp_path))))
    assert written == [(0, 1), (0, 1), (2, 3), (2, 3), (4, 5), (5, 6)]


def test_the_best_epoch_of_a_student_is_always_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SaveEpoch, "pause", 1e9)
    callback, best = SaveEpoch(tmp_path), BestStudents(tmp_path)
    written = []
    for epoch in range(5):
        if epoch == 2:
            best.chosen["a"] = {"epoch": 2, "accuracy": 0.5}
        trainer = FakeTrainer(epoch, loss=1.0)
        trainer.callbacks = [best]
        callback.on_train_epoch_end(trainer, METHOD)
        written.append(int((tmp_path / "last.ckpt").read_text()))
    assert written == [0, 0, 2, 2, 2]


@pytest.mark.parametrize(
    ("ends", "is_over"),
    [({}, False), ({"max_epochs": 3}, True), ({"max_epochs": 4}, False), ({"max_steps": 30}, True),
     ({"max_steps": 29}, True), ({"max_steps": 31}, False), ({"should_stop": True}, True)],
)  # fmt: skip
def test_the_last_epoch_is_recognised(ends: dict, is_over: bool) -> None:
    trainer = FakeTrainer(2)  # after 30 steps
    vars(trainer).update(ends)
    assert is_last(trainer) == is_over


def test_all_ranks_save_when_the_first_one_does(tmp_path: Path) -> None:
    callback, saved = SaveEpoch(tmp_path), []
    for epoch in range(3):
        trainer = FakeTrainer(epoch, first=False, loss=1.0)
        trainer.strategy.broadcast = lambda value, epoch=epoch: epoch == 2  # decided by rank 0
        trainer.save_checkpoint = lambda path, epoch=epoch: saved.append(epoch)
        callback.on_train_epoch_end(trainer, METHOD)
    assert saved == [2]


def test_a_metric_that_first_appears_later_gets_a_column(tmp_path: Path) -> None:
    callback = SaveEpoch(tmp_path)
    callback.on_train_epoch_end(FakeTrainer(0, loss=1.0), METHOD)
    callback.on_train_epoch_end(FakeTrainer(1, loss=0.5, accuracy=0.5), METHOD)
    assert [row["accuracy"] for row in rows(tmp_path)] == ["", "0.5"]


def test_the_rows_are_stored_in_the_checkpoint(tmp_path: Path) -> None:
    callback, again = SaveEpoch(tmp_path), SaveEpoch(tmp_path)
    callback.on_train_epoch_end(FakeTrainer(0, loss=1.0), METHOD)
    again.load_state_dict(deepcopy(callback.state_dict()))
    callback.on_train_epoch_end(FakeTrainer(1, loss=9.0), METHOD)  # lost: the run is killed here
    again.on_train_epoch_end(FakeTrainer(1, loss=0.5), METHOD)
    assert [row["loss"] for row in rows(tmp_path)] == ["1.0", "0.5"]


def test_a_full_disk_leaves_the_files_of_the_epoch_before(tmp_path: Path) -> None:
    callback = SaveEpoch(tmp_path)
    callback.on_train_epoch_end(FakeTrainer(0, loss=1.0), METHOD)
    trainer = FakeTrainer(1, loss=0.5)
    trainer.full_disk = True
    with pytest.raises(OSError, match="No space left"):
        callback.on_train_epoch_end(trainer, METHOD)
    assert (tmp_path / "last.ckpt").read_text() == "0"
    assert len(rows(tmp_path)) == 1
    assert names(tmp_path) == {"last.ckpt", "epochs.csv", "SHA256SUMS"}


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    SaveEpoch(tmp_path).on_train_epoch_end(FakeTrainer(0, first=False, loss=1.0), METHOD)
    assert list(tmp_path.iterdir()) == []


def with_table(share: float) -> SimpleNamespace:
    """A method that adds two rows to its own table in each epoch."""
    bins = [{"low": 0.0, "share": 0.0, "accuracy": None}, {"low": 0.5, "share": share}]
    return SimpleNamespace(epoch_tables=lambda: {"confidence": bins})


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "confidence.csv").read_text().splitlines()))


def test_a_methods_table_has_its_rows_of_every_epoch(tmp_path: Path) -> None:
    callback = SaveEpoch(tmp_path)
    for epoch in range(2):
        callback.on_train_epoch_end(FakeTrainer(epoch, loss=1.0), with_table(share=1.0))
        assert len(table(tmp_path)) == 2 * (epoch + 1)
    assert table(tmp_path)[2:] == [
        {"epoch": "1", "low": "0.0", "share": "0.0", "accuracy": ""},
        {"epoch": "1", "low": "0.5", "share": "1.0", "accuracy": ""},
    ]


def test_the_rows_of_a_methods_table_travel_in_the_checkpoint(tmp_path: Path) -> None:
    callback, again = SaveEpoch(tmp_path), SaveEpoch(tmp_path)
    callback.on_train_epoch_end(FakeTrainer(0, loss=1.0), with_table(share=1.0))
    again.load_state_dict(deepcopy(callback.state_dict()))
    callback.on_train_epoch_end(FakeTrainer(1, loss=1.0), with_table(share=0.9))  # lost: killed
    again.on_train_epoch_end(FakeTrainer(1, loss=1.0), with_table(share=0.5))
    assert [row["share"] for row in table(tmp_path)] == ["0.0", "1.0", "0.0", "0.5"]


def test_further_ranks_write_no_table_and_keep_all_rows(tmp_path: Path) -> None:
    callback = SaveEpoch(tmp_path)
    trainer = FakeTrainer(0, first=False, loss=1.0)
    trainer.save_checkpoint = lambda path: None
    callback.on_train_epoch_end(trainer, with_table(share=1.0))
    assert list(tmp_path.iterdir()) == []
    assert len(callback.state_dict()["tables"]["confidence"]) == 2


def test_an_epoch_without_validation_has_no_val_numbers(tmp_path: Path) -> None:
    callback, metrics = SaveEpoch(tmp_path), {"train/loss": 1.0, "val/accuracy": 0.5}
    for epoch in range(3):
        trainer = FakeTrainer(epoch, **metrics)  # Lightning keeps those of earlier epochs
        trainer.sanity_checking = epoch == 0
        if epoch < 2:
            callback.on_validation_end(trainer, METHOD)
        callback.on_train_epoch_end(trainer, METHOD)
    assert [row["val/accuracy"] for row in rows(tmp_path)] == ["", "0.5", ""]
    assert [row["train/loss"] for row in rows(tmp_path)] == ["1.0"] * 3


@pytest.mark.parametrize(("max_epochs", "goes_on"), [(100, False), (120, True)])
def test_a_run_that_was_stopped_early_stays_stopped(
    tmp_path: Path, max_epochs: int, goes_on: bool
) -> None:
    callback, again = SaveEpoch(tmp_path), SaveEpoch(tmp_path)
    callback.on_train_epoch_end(FakeTrainer(3, done=True), METHOD)
    again.load_state_dict(deepcopy(callback.state_dict()))
    resumed = FakeTrainer(3)
    resumed.max_epochs = max_epochs
    again.on_fit_start(resumed, METHOD)
    assert resumed.should_stop is not goes_on
