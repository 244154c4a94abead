"""Trackers without a network or an account; nothing is written to the user's home."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(home))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for processes that a test starts
    for name in ("WANDB_BASE_URL", "WANDB_RUN_ID", "WANDB_SWEEP_ID", "KD_LIGHTNING_JOB"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def small() -> list[str]:
    """A run of about a second: supervised, without a teacher, without a logger."""
    return ["method=supervised", "data=synthetic", "data.num_train=96", "data.num_test=32",
            "data.batch_size=16", "trainer.max_epochs=2", "trainer.log_every_n_steps=2",
            "hardware=cpu", "callbacks=quiet", "logger=none"]  # fmt: skip
