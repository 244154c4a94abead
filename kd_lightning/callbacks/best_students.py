"""Chooses and saves the best weights of each student by its metrics on val."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from kd_lightning.base.errors import COPY, Damaged
from kd_lightning.base.files import atomic_write
from kd_lightning.base.ranks import is_first_rank
from kd_lightning.base.tensor_files import read_checkpoint
from kd_lightning.callbacks.averaging import averaging_of

RECORDED = ("accuracy", "nll", "robust_accuracy")  # metrics on val, where the method has them


class BestStudents(Callback):
    """Writes ``best-<key>.ckpt`` for each student: its weights and the metrics that chose them.

    The best epoch has the highest val accuracy, or the highest of another metric that the method
    names (``chosen_by``); among equals the lowest val NLL; among these the earliest. Without a val
    part ``best-<key>.ckpt`` holds the weights of the last epoch.

    If students are averaged (``AveragedStudents``), the averages are validated and saved. Once
    there is an average, earlier epochs are no longer candidates.

    Attributes:
        chosen: key -> {"epoch", "accuracy", "nll"} of its best epoch, "robust_accuracy" if the
            method attacks on val, and the metric that chose it; empty without a val part.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.chosen: dict[str, dict[str, float]] = {}
        self._chosen_from_averages = False

    def path(self, key: str) -> Path:
        return self.directory / f"best-{key}.ckpt"

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        # with max_steps a run may end within an epoch, where Lightning would not validate: then the
        # last weights could not be chosen
        if has_all_steps(trainer):
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, method: LightningModule) -> None:
        averaging, students = averaging_of(trainer), method.students
        if averaging is not None:
            students = averaging.students  # method.students are the trained weights here
            if averaging.num_averaged and not self._chosen_from_averages:
                self.chosen, self._chosen_from_averages = {}, True
        for key, net in students.items():
            metrics = {
                name: trainer.callback_metrics[f"val/{key}/{name}"].item()
                for name in dict.fromkeys((*RECORDED, method.chosen_by))
                if f"val/{key}/{name}" in trainer.callback_metrics
            }
            best = self.chosen.get(key)
            if best is None or _rank(metrics, method) > _rank(best, method):
                self.chosen[key] = {"epoch": trainer.current_epoch, **metrics}
                if trainer.is_global_zero:
                    save_student(net, self.path(key), key=key, **self.chosen[key])

    def on_fit_end(self, trainer: Trainer, method: LightningModule) -> None:
        # like on_train_end, which is not called when a run is resumed that was killed after its
        # last checkpoint
        # the averaging callback runs before this one, so method.students are the averages here
        if not self.chosen and trainer.is_global_zero:
            for key, net in method.students.items():
                save_student(net, self.path(key), key=key, epoch=trainer.current_epoch - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"chosen": self.chosen, "of_averages": self._chosen_from_averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.chosen = state_dict["chosen"]
        self._chosen_from_averages = state_dict.get("of_averages", False)  # missing in older runs
        if is_first_rank():  # the others have no files
            self.chosen = {k: self._in_file(k, choice) for k, choice in self.chosen.items()}

    def _in_file(self, key: str, choice: dict[str, float]) -> dict[str, float]:
        """What chose the weights in a student's file: ``choice``, or, if a run was stopped after
        its best epoch and resumes from an earlier one, what the file says of that epoch.

        Raises:
            Damaged: the weights of ``choice`` are lost.
        """
        path, lost = self.path(key), f"val chose its weights of epoch {choice['epoch']}, so {COPY}"
        saved = read_checkpoint(path, lost, mmap=True)
        facts = {name: value for name, value in saved.items() if name not in ("state_dict", "key")}
        if facts["epoch"] < choice["epoch"]:
            raise Damaged(path, f"has the weights of epoch {facts['epoch']}", lost)
        return facts if facts["epoch"] > choice["epoch"] else choice


def _rank(metrics: dict[str, float], method: LightningModule) -> tuple[float, float]:
    return metrics[method.chosen_by], -metrics["nll"]


def save_student(net: nn.Module, path: Path, **facts: Any) -> None:
    """Writes a student's weights, and facts about them, atomically."""
    # an open file, because torch hides the reason of a failure when it is given a path
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        torch.save({"state_dict": net.state_dict(), **facts}, file)


def has_all_steps(trainer: Trainer) -> bool:
    """Whether there are ``max_steps`` steps, if the run has such a limit."""
    return 0 <= trainer.max_steps <= trainer.global_step
