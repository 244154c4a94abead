"""What a run leaves at the end of every epoch: a row of ``epochs.csv``, and ``last.ckpt``."""

import csv
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from kd_lightning.files import whole


class Record(Checkpoint):
    """Writes one row per epoch, and the checkpoint that a run resumes from.

    One callback, so that rows and weights are always of the same epoch: the rows travel in the
    checkpoint, and a resumed run rewrites the file from them. A ``Checkpoint`` because Lightning
    calls these last, when the epoch's own metrics are known.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics})
        last = self.directory / "last.ckpt"
        # every rank calls save_checkpoint, the first one writes
        with whole(last) if trainer.is_global_zero else nullcontext(last) as path:
            trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            self._write_rows()

    def _write_rows(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        path = self.directory / "epochs.csv"
        with whole(path) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
