"""The files that a run writes at the end of an epoch: ``last.ckpt``, ``epochs.csv``, and the tables
of its method.
"""

import csv
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loops.loop import _Loop

from kd_lightning.base.files import whole
from kd_lightning.callbacks.best_students import BestStudents


class SaveEpoch(Checkpoint):
    """Writes the checkpoint that a run resumes from, a row per epoch, and the rows of the method's
    own tables (``epoch_tables``).

    One callback does it all, so that rows and weights are always of the same epoch: the rows are
    kept in the checkpoint, and a resumed run writes the files again from them. It is a
    ``Checkpoint`` because Lightning calls these last, when the epoch's metrics are known.

    The first and the last epoch are always written, and each epoch from which val chose a student.
    The others are written at most once in ``pause`` seconds, because an epoch of a tiny data set
    takes less time than its checkpoint. A killed run loses at most that.
    """

    pause = 1.0

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.rows: list[dict[str, float]] = []
        self.tables: dict[str, list[dict[str, float | None]]] = {}  # of the method
        self._written_at = float("-inf")

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        """Goes on with the next epoch: ``last.ckpt`` is always of a finished one. Lightning sees to
        that itself, but not with ``max_steps``: it would end the finished epoch once more.
        """
        loop = trainer.fit_loop
        if loop.is_resuming:
            for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
                progress.completed = progress.processed
            _Loop.restarting.fset(loop, False)  # its own setter makes it True with max_steps
            loop.reset_restart_stage()
            loop.epoch_loop.reset_restart_stage()

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics})
        for name, rows in method.epoch_tables().items():
            table = self.tables.setdefault(name, [])
            table += [{"epoch": trainer.current_epoch, **row} for row in rows]
        is_due = (
            is_last(trainer)
            or time.monotonic() - self._written_at >= self.pause
            or chose_now(trainer)
        )
        if trainer.strategy.broadcast(is_due):  # or some ranks would wait for others to save
            self._write(trainer)
            self._written_at = time.monotonic()

    def _write(self, trainer: Trainer) -> None:
        last = self.directory / "last.ckpt"
        # every rank calls save_checkpoint, the first one writes
        with whole(last) if trainer.is_global_zero else nullcontext(last) as path:
            trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            for name, rows in {"epochs": self.rows, **self.tables}.items():
                self._write_rows(name, rows)

    def _write_rows(self, name: str, rows: list[dict[str, float | None]]) -> None:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        path = self.directory / f"{name}.csv"
        with whole(path) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "tables": self.tables}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
        self.tables = state_dict.get("tables", {})  # older runs had none


def is_last(trainer: Trainer) -> bool:
    """Whether the run ends with this epoch. Not ``fit_loop.done``: that turns to the next one."""
    epochs = trainer.fit_loop.epoch_progress.current.processed
    return (
        trainer.should_stop
        or epochs == trainer.max_epochs
        or 0 <= trainer.max_steps <= trainer.global_step
    )


def chose_now(trainer: Trainer) -> bool:
    """Whether a student's best weights are of this epoch: their file must not be newer than
    ``last.ckpt``, which says which epoch they are of.
    """
    chosen = [c.chosen for c in trainer.callbacks if isinstance(c, BestStudents)]
    return any(one["epoch"] == trainer.current_epoch for each in chosen for one in each.values())
