"""The numbers that Lightning's Trainer takes, which its own signature does not say."""

from typing import Any, Literal

from kd_lightning.base.ranges import Count, CountOrZero, NotNegative, Share, ShareAboveZero

# Argument -> its type with its range, in place of that of Lightning's signature
TRAINER_TYPES: dict[str, Any] = {
    "max_epochs": Count,
    "min_epochs": CountOrZero | None,
    "max_steps": Literal[-1] | Count,
    "min_steps": CountOrZero | None,
    "limit_train_batches": Count | ShareAboveZero | None,
    "limit_val_batches": CountOrZero | Share | None,
    "val_check_interval": Count | ShareAboveZero | str | None,
    "check_val_every_n_epoch": Count | None,
    "log_every_n_steps": Count | None,
    "accumulate_grad_batches": Count,
    "gradient_clip_val": NotNegative | None,
    "reload_dataloaders_every_n_epochs": CountOrZero,
}
# Argument -> what to do instead
NOT_FOR_RUNS = {
    "fast_dev_run": "its record would look like that of a finished run; for a short run set "
    "trainer.max_epochs=1 and +trainer.limit_train_batches=2",
    "limit_test_batches": "all of test is used, once (data.… chooses the samples)",
    "limit_predict_batches": "python -m kd_lightning.predict takes the files that it is given",
}
