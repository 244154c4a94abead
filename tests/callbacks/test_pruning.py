from types import SimpleNamespace

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.callbacks.pruning import Pruning


def test_an_epoch_without_validation_reports_nothing() -> None:
    """With ``check_val_every_n_epoch=2`` there is no accuracy after the first epoch."""
    callback = Pruning(report=pytest.fail, should_prune=pytest.fail)
    callback.on_train_epoch_end(SimpleNamespace(callback_metrics={}, num_val_batches=[3]), None)
    callback.on_train_epoch_start(None, None)
    for batches in ([], [0]):
        trainer = SimpleNamespace(callback_metrics={}, num_val_batches=batches)
        with pytest.raises(UserError, match="a search needs a val part"):
            callback.on_train_epoch_end(trainer, None)
