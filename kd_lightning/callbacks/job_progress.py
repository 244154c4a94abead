"""Reports the progress of a run to its sweep."""

import time
from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer

from kd_lightning.callbacks.progress import epochs_of


class JobProgress(Callback):
    """Reports at the start of training and after every epoch.

    Args:
        title: of the run.
        report: called with ``phase`` (the title), ``epoch`` (number of finished epochs),
            ``epochs`` (of the whole run), ``first`` (the epoch that this process began with),
            ``started`` (when it began, in seconds since 1970) and ``accuracy`` (student -> its val
            accuracy).
    """

    def __init__(self, title: str, report: Callable[..., None]) -> None:
        self.title = title
        self.report = report

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        self.first, self.started = trainer.current_epoch, time.time()
        self._report(trainer, method, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        self._report(trainer, method, trainer.current_epoch + 1)

    def _report(self, trainer: Trainer, method: LightningModule, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        self.report(
            phase=self.title,
            epoch=epoch,
            epochs=epochs_of(trainer),
            first=self.first,
            started=self.started,
            accuracy={
                key: round(trainer.callback_metrics[name].item(), 4)
                for key in method.students
                if (name := f"val/{key}/accuracy") in trainer.callback_metrics
            },
        )
