"""The progress that a run reports to its sweep."""

from types import SimpleNamespace

import torch

from kd_lightning.callbacks.job_progress import JobProgress


def test_every_epoch_is_reported_with_the_accuracies_of_the_students() -> None:
    reports = []
    status = JobProgress("kd on digits", lambda **progress: reports.append(progress))
    trainer = SimpleNamespace(
        is_global_zero=True, current_epoch=3, max_epochs=10, max_steps=-1, callback_metrics={}
    )
    method = SimpleNamespace(students={"a": None, "b": None})
    status.on_train_start(trainer, method)
    trainer.callback_metrics = {"val/a/accuracy": torch.tensor(0.5), "val/a/nll": torch.tensor(1)}
    status.on_train_epoch_end(trainer, method)
    first, second = reports
    assert (first["epoch"], first["epochs"], first["first"], first["accuracy"]) == (3, 10, 3, {})
    assert (second["epoch"], second["phase"]) == (4, "kd on digits")
    assert second["accuracy"] == {"a": 0.5}
    assert second["started"] == first["started"]


def test_only_the_first_rank_reports() -> None:
    status = JobProgress("kd", lambda **_: 1 / 0)
    trainer = SimpleNamespace(is_global_zero=False, current_epoch=0, max_epochs=1, max_steps=-1)
    status.on_train_start(trainer, None)
    status.on_train_epoch_end(trainer, None)
