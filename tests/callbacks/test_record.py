import csv
import errno
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint

from kd_lightning.callbacks.record import Record


class FakeTrainer(SimpleNamespace):
    """A trainer at the end of an epoch, whose checkpoint is the number of that epoch."""

    full_disk = False

    def __init__(self, epoch: int, *, first: bool = True, **metrics: float) -> None:
        super().__init__(
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


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "epochs.csv").read_text().splitlines()))


def test_lightning_calls_it_last_when_the_metrics_are_known() -> None:
    assert issubclass(Record, Checkpoint)


def test_a_row_and_a_checkpoint_per_epoch(tmp_path: Path) -> None:
    record = Record(tmp_path)
    for epoch in range(3):
        record.on_train_epoch_end(FakeTrainer(epoch, accuracy=epoch / 4), None)
        assert (tmp_path / "last.ckpt").read_text() == str(epoch)
        assert len(rows(tmp_path)) == epoch + 1
    last = rows(tmp_path)[-1]
    assert (last["epoch"], last["step"], float(last["accuracy"])) == ("2", "30", 0.5)
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "epochs.csv"}


def test_a_metric_that_comes_later_gets_a_column(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.on_train_epoch_end(FakeTrainer(0, loss=1.0), None)
    record.on_train_epoch_end(FakeTrainer(1, loss=0.5, accuracy=0.5), None)
    assert [row["accuracy"] for row in rows(tmp_path)] == ["", "0.5"]


def test_the_rows_travel_in_the_checkpoint(tmp_path: Path) -> None:
    record, again = Record(tmp_path), Record(tmp_path)
    record.on_train_epoch_end(FakeTrainer(0, loss=1.0), None)
    again.load_state_dict(deepcopy(record.state_dict()))
    record.on_train_epoch_end(FakeTrainer(1, loss=9.0), None)  # lost: the run was killed after it
    again.on_train_epoch_end(FakeTrainer(1, loss=0.5), None)
    assert [row["loss"] for row in rows(tmp_path)] == ["1.0", "0.5"]


def test_a_full_disk_leaves_the_last_good_epoch(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.on_train_epoch_end(FakeTrainer(0, loss=1.0), None)
    trainer = FakeTrainer(1, loss=0.5)
    trainer.full_disk = True
    with pytest.raises(OSError, match="No space left"):
        record.on_train_epoch_end(trainer, None)
    assert (tmp_path / "last.ckpt").read_text() == "0"
    assert len(rows(tmp_path)) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "epochs.csv"}


def test_further_ranks_write_nothing(tmp_path: Path) -> None:
    Record(tmp_path).on_train_epoch_end(FakeTrainer(0, first=False, loss=1.0), None)
    assert list(tmp_path.iterdir()) == []
