from types import SimpleNamespace

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.callbacks.pruning import Pruning


def test_an_epoch_without_validation_reports_nothing() -> None:
    """With ``check_val_every_n_epoch=2`` there is no accuracy after the first epoch."""
    callback = Pruning(report=pytest.fail, should_prune=pytest.fail)

    def trainer(val: object, limit: float) -> SimpleNamespace:
        data = SimpleNamespace(parts={"val": val})
        return SimpleNamespace(callback_metrics={}, datamodule=data, limit_val_batches=limit)

    callback.on_train_epoch_end(trainer("some", 1.0), None)
    callback.on_train_epoch_start(None, None)
    for val, limit in ((None, 1.0), ("some", 0)):
        with pytest.raises(UserError, match="a search needs a val part"):
            callback.on_train_epoch_end(trainer(val, limit), None)
