"""Each student's best weights, chosen on its own val part."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from kd_lightning.base.files import whole
from kd_lightning.callbacks.averaging import averaging_of


class BestStudents(Callback):
    """Keeps ``best-<key>.ckpt`` per student: its weights alone, and what it was chosen by.

    Best is the highest val accuracy; among equals the lowest val NLL, among these the earliest.
    Without a val part the last epoch is the result: ``best-<key>.ckpt`` then holds that. Where
    students are averaged (``AveragedStudents``) the averages are what is validated and kept, and
    once there is one, an epoch before it is no longer a candidate.

    Attributes:
        chosen: key -> {"epoch", "accuracy", "nll"} of its best epoch; empty without a val part.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.chosen: dict[str, dict[str, float]] = {}
        self._of_averages = False

    def path(self, key: str) -> Path:
        return self.directory / f"best-{key}.ckpt"

    def on_validation_end(self, trainer: Trainer, method: LightningModule) -> None:
        averaging, students = averaging_of(trainer), method.students
        if averaging is not None:
            students = averaging.students  # the Trainer has put back those that are trained
            if averaging.count and not self._of_averages:
                self.chosen, self._of_averages = {}, True
        for key, net in students.items():
            metrics = {
                name: trainer.callback_metrics[f"val/{key}/{name}"].item()
                for name in ("accuracy", "nll")
            }
            best = self.chosen.get(key)
            if best is None or _rank(metrics) > _rank(best):
                self.chosen[key] = {"epoch": trainer.current_epoch, **metrics}
                if trainer.is_global_zero:
                    save_student(net, self.path(key), key=key, **self.chosen[key])

    def on_train_end(self, trainer: Trainer, method: LightningModule) -> None:
        # averages are in the method by now: what makes them stands before this one
        if not self.chosen and trainer.is_global_zero:
            for key, net in method.students.items():
                save_student(net, self.path(key), key=key, epoch=trainer.current_epoch - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"chosen": self.chosen, "of_averages": self._of_averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.chosen = state_dict["chosen"]
        self._of_averages = state_dict.get("of_averages", False)  # older runs had none


def _rank(metrics: dict[str, float]) -> tuple[float, float]:
    return metrics["accuracy"], -metrics["nll"]


def save_student(net: nn.Module, path: Path, **about: Any) -> None:
    """Writes a student's weights, whole or not at all."""
    # into an open file: given a path, torch hides the reason why it cannot be written
    with whole(path) as unfinished, unfinished.open("wb") as file:
        torch.save({"state_dict": net.state_dict(), **about}, file)
