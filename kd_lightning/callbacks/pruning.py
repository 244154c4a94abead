"""Ends a trial of a search early if other trials did better at the same epoch."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer

from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import delay_interrupts
from kd_lightning.records.jobs import Job


class Pruned(Exception):
    """A trial was ended early. This is not an error.

    Args:
        epoch: number of finished epochs.
        accuracy: the best val/accuracy of these epochs.
    """

    def __init__(self, epoch: int, accuracy: float) -> None:
        super().__init__(f"ended after {epoch} epochs at val/accuracy {accuracy:.4f}")
        self.epoch = epoch
        self.accuracy = accuracy


class Pruning(Callback):
    """Reports the best val/accuracy after every epoch, and may end the trial before the next one.

    Args:
        report: called with (best val/accuracy, number of finished epochs).
        should_prune: whether the search wants to end the trial.
    """

    def __init__(
        self, report: Callable[[float, int], None], should_prune: Callable[[], bool]
    ) -> None:
        self.report = report
        self.should_prune = should_prune
        self.best: float | None = None

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        if (accuracy := trainer.callback_metrics.get("val/accuracy")) is None:
            # Lightning loads val when it is validated first: not yet, check_val_every_n_epoch=2
            if trainer.datamodule.parts["val"] is not None and trainer.limit_val_batches:
                return
            raise UserError("a search needs a val part to choose by (data.val_fraction=…)")
        self.best = max(accuracy.item(), self.best or 0.0)
        if trainer.is_global_zero:
            self.report(self.best, trainer.current_epoch + 1)

    def on_train_epoch_start(self, trainer: Trainer, method: LightningModule) -> None:
        # not at the end of an epoch: here last.ckpt holds the finished epoch, and an epoch is left
        if self.best is None:
            return
        prune = trainer.is_global_zero and self.should_prune()
        if trainer.strategy.broadcast(prune):  # all ranks must stop, or the others would hang
            raise Pruned(trainer.current_epoch, self.best)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


def default_storage(sweep: Path) -> str:
    """Optuna's storage if the search names none: a file in the sweep's directory."""
    return f"sqlite:///{sweep / 'search.db'}"


def pruning_callback(job: Job, search: Mapping[str, Any]) -> Pruning:
    """The callback of a job that is a trial of a search.

    Args:
        search: from the job's spec: study, storage, trial and pruner.
    """
    optuna = need_optuna()
    study = optuna.load_study(
        study_name=search["study"],
        storage=search["storage"] or default_storage(job.directory.parent.parent),
        pruner=instantiate(search["pruner"], _convert_="object"),
    )
    trial = optuna.trial.Trial(study, study.trials[search["trial"]]._trial_id)

    def report(value: float, epoch: int) -> None:
        with delay_interrupts():
            reported = study.trials[trial.number].intermediate_values
            if epoch not in reported:  # a resumed job may repeat an epoch
                trial.report(value, epoch)

    return Pruning(report, trial.should_prune)


def need_optuna() -> Any:
    """The package ``optuna``.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError('a search needs Optuna: pip install "kd_lightning[search]"')
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
