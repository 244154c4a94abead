"""One progress bar for a whole run; in a log file, one line per tenth of it."""

import time

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class RunProgress(Callback):
    """Shows epochs done, time left, and the last known loss and val accuracies.

    Args:
        title: what is being trained.
        console: where to; a terminal gets a live bar, anything else lines.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title = title
        self.console = console if console is not None else Console(stderr=True)
        self._bar: Progress | None = None
        self._said = time.monotonic()

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("epochs"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.title, total=trainer.max_epochs, completed=trainer.current_epoch, metrics=""
            )
        else:
            self._say(f"{self.title}: {trainer.max_epochs} epochs")

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if self._bar is not None and time.monotonic() - self._said > 0.5:
            self._said = time.monotonic()
            share = trainer.fit_loop.epoch_loop.batch_progress.current.completed
            done = trainer.current_epoch + share / max(1, trainer.num_training_batches)
            self._bar.update(self._task, completed=round(done, 1))

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        done = trainer.current_epoch + 1
        accuracies = [
            f"{key} {trainer.callback_metrics[name]:.3f}"
            for key in method.students
            if (name := f"val/{key}/accuracy") in trainer.callback_metrics
        ]
        shown = "val/accuracy " + ", ".join(accuracies) if accuracies else ""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, metrics=shown)
        elif done == trainer.max_epochs or done % max(1, trainer.max_epochs // 10) == 0:
            self._say(f"{self.title}: epoch {done}/{trainer.max_epochs} {shown}")

    def teardown(self, trainer: Trainer, method: LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, method: LightningModule, error: object) -> None:
        self._stop()

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
