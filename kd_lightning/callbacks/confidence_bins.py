"""How often a teacher and its students are right at each level of its confidence, by epoch."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from kd_lightning.base.files import whole


class ConfidenceBins(Checkpoint):
    """Writes ``confidence.csv``, a row per epoch and bin, if the method has ``confidence_bins``.

    The rows travel in the checkpoint, and a resumed run rewrites the file from them. A
    ``Checkpoint`` because Lightning calls these last, when the epoch's bins are known; it stands
    before ``SaveEpoch``, whose checkpoint is to hold them.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.columns: list[str] = []
        self.rows: list[list[float | None]] = []

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        bins: list[dict[str, float | None]] | None = getattr(method, "confidence_bins", None)
        if not bins:
            return
        self.columns = ["epoch", *bins[0]]
        self.rows += [[trainer.current_epoch, *one.values()] for one in bins]
        if trainer.is_global_zero:
            self._write_rows()

    def _write_rows(self) -> None:
        path = self.directory / "confidence.csv"
        with whole(path) as unfinished, unfinished.open("w", newline="") as file:
            csv.writer(file).writerows([self.columns, *self.rows])

    def state_dict(self) -> dict[str, Any]:
        return {"columns": self.columns, "rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.columns, self.rows = state_dict["columns"], state_dict["rows"]
