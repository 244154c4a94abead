"""Writes the files of an epoch: ``last.ckpt``, ``epochs.csv`` and the tables of the method."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loops.loop import _Loop

from kd_lightning.base.kept_files import write_kept
from kd_lightning.base.tables import csv_text
from kd_lightning.callbacks.best_students import BestStudents, has_all_steps
from kd_lightning.records.generations import LAST, next_generation


class SaveEpoch(Checkpoint):
    """Writes the checkpoint that a run resumes from, a row per epoch, and the rows of the method's
    own tables (``epoch_tables``).

    One callback does all this, so that rows and weights are always of the same epoch: the rows are
    stored in the checkpoint, and a resumed run rewrites the files from them. This is a
    ``Checkpoint`` because Lightning calls such callbacks last, when the epoch's metrics are known.

    Always written are the first epoch, the last epoch, and each epoch that is a student's best so
    far. Of the other epochs at most one is written every ``pause`` seconds, because an epoch of a
    tiny data set takes less time than its checkpoint. A run that is killed loses only the epochs
    since the last write. The checkpoint before the last one is kept (``records/generations.py``).
    """

    pause = 1.0  # seconds

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.rows: list[dict[str, float]] = []
        self.tables: dict[str, list[dict[str, float | None]]] = {}  # of the method
        self.stopped_of: int | None = None  # ``max_epochs`` of a run that was stopped early
        self._has_validated = False  # in this epoch
        self._written_at = float("-inf")

    def on_fit_start(self, trainer: Trainer, method: LightningModule) -> None:
        """Writes the rows of the checkpoint. A run that was killed between its checkpoint and its
        tables has older tables, and perhaps no epoch left that would write them.
        """
        if self.rows and trainer.is_global_zero:
            self._write_tables()
        # early stopping is over, unless more epochs are asked for now; Lightning forgets it
        if self.stopped_of is not None and self.stopped_of == trainer.max_epochs:
            trainer.should_stop = True

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        """Makes a resumed run begin with the next epoch, because ``last.ckpt`` is always of a
        finished epoch. Lightning does this itself, but with ``max_steps`` it would end the finished
        epoch a second time. And it would go on with the loading processes that it has started to
        count the batches, before it knew the epoch: they load epoch 0.
        """
        loop = trainer.fit_loop
        if loop.is_resuming:
            for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
                progress.completed = progress.processed
            _Loop.restarting.fset(loop, False)  # the loop's own setter sets True with max_steps
            loop._resuming_from_checkpoint = False  # loading begins anew, with this epoch's order
            loop.reset_restart_stage()
            loop.epoch_loop.reset_restart_stage()

    def on_validation_end(self, trainer: Trainer, method: LightningModule) -> None:
        self._has_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        metrics = {
            name: value.item()
            for name, value in trainer.callback_metrics.items()
            if self._has_validated or not name.startswith("val/")  # else of an earlier epoch
        }
        self._has_validated = False
        is_stopped = trainer.should_stop and not has_all_steps(trainer)
        self.stopped_of = trainer.max_epochs if is_stopped else None
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics})
        for name, rows in method.epoch_tables().items():
            table = self.tables.setdefault(name, [])
            table += [{"epoch": trainer.current_epoch, **row} for row in rows]
        is_due = (
            is_last(trainer)
            or time.monotonic() - self._written_at >= self.pause
            or is_best_epoch(trainer)
        )
        if trainer.strategy.broadcast(is_due):  # all ranks must save together
            self._write(trainer)
            self._written_at = time.monotonic()

    def _write(self, trainer: Trainer) -> None:
        # every rank must call save_checkpoint; only the first one writes
        is_first, last = trainer.is_global_zero, self.directory / LAST
        with next_generation(self.directory) if is_first else nullcontext(last) as path:
            trainer.save_checkpoint(path)
        if is_first:
            self._write_tables()

    def _write_tables(self) -> None:
        tables = {"epochs": self.rows, **self.tables}
        write_kept(self.directory, {f"{name}.csv": csv_text(tables[name]) for name in tables})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "tables": self.tables, "stopped_of": self.stopped_of}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
        self.tables = state_dict.get("tables", {})  # missing in older runs, as is the next one
        self.stopped_of = state_dict.get("stopped_of")


def is_last(trainer: Trainer) -> bool:
    """Whether the run ends with this epoch. Lightning's ``fit_loop.done`` is not used, because
    reading it advances the epoch counter.
    """
    epochs = trainer.fit_loop.epoch_progress.current.processed
    return trainer.should_stop or epochs == trainer.max_epochs or has_all_steps(trainer)


def is_best_epoch(trainer: Trainer) -> bool:
    """Whether this epoch is the best so far of some student.

    Such an epoch must be saved: the file of best weights must not be newer than ``last.ckpt``,
    which stores the epoch that they are of.
    """
    chosen = [c.chosen for c in trainer.callbacks if isinstance(c, BestStudents)]
    epochs = [choice["epoch"] for by_student in chosen for choice in by_student.values()]
    return trainer.current_epoch in epochs
