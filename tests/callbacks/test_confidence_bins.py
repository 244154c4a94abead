import csv
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

from lightning.pytorch.callbacks import Checkpoint

from kd_lightning.callbacks.confidence_bins import ConfidenceBins


def trainer(epoch: int, *, first: bool = True) -> SimpleNamespace:
    return SimpleNamespace(current_epoch=epoch, is_global_zero=first)


def method(share: float) -> SimpleNamespace:
    """One whose confidences are all in the second of two bins."""
    return SimpleNamespace(
        confidence_bins=[
            {"low": 0.0, "high": 0.5, "share": 0.0, "a_accuracy": None},
            {"low": 0.5, "high": 1.0, "share": share, "a_accuracy": 0.25},
        ]
    )


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "confidence.csv").read_text().splitlines()))


def test_lightning_calls_it_last_when_the_bins_are_known() -> None:
    assert issubclass(ConfidenceBins, Checkpoint)


def test_a_row_per_epoch_and_bin_and_an_empty_cell_where_a_bin_is_empty(tmp_path: Path) -> None:
    callback = ConfidenceBins(tmp_path)
    for epoch in range(2):
        callback.on_train_epoch_end(trainer(epoch), method(share=1.0))
        assert len(rows(tmp_path)) == 2 * (epoch + 1)
    assert rows(tmp_path)[2:] == [
        {"epoch": "1", "low": "0.0", "high": "0.5", "share": "0.0", "a_accuracy": ""},
        {"epoch": "1", "low": "0.5", "high": "1.0", "share": "1.0", "a_accuracy": "0.25"},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["confidence.csv"]


def test_the_rows_travel_in_the_checkpoint(tmp_path: Path) -> None:
    callback, again = ConfidenceBins(tmp_path), ConfidenceBins(tmp_path)
    callback.on_train_epoch_end(trainer(0), method(share=1.0))
    again.load_state_dict(deepcopy(callback.state_dict()))
    callback.on_train_epoch_end(trainer(1), method(share=0.9))  # lost: the run was killed after it
    again.on_train_epoch_end(trainer(1), method(share=0.5))
    assert [row["share"] for row in rows(tmp_path)] == ["0.0", "1.0", "0.0", "0.5"]


def test_a_method_without_confidences_leaves_no_file(tmp_path: Path) -> None:
    ConfidenceBins(tmp_path).on_train_epoch_end(trainer(0), SimpleNamespace())
    assert list(tmp_path.iterdir()) == []


def test_further_ranks_write_nothing_and_remember_all(tmp_path: Path) -> None:
    callback = ConfidenceBins(tmp_path)
    callback.on_train_epoch_end(trainer(0, first=False), method(share=1.0))
    assert list(tmp_path.iterdir()) == []
    assert len(callback.state_dict()["rows"]) == 2
