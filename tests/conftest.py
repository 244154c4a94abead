"""What holds for every test: one thread, no network, no leftover environment."""

import os
from pathlib import Path

import pytest
import torch
from helpers import TINY

from kd_lightning.build import quieten

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _quiet_libraries() -> None:
    quieten()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KD_LIGHTNING_RUN_DIR", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained teachers, shared by the tests of this process."""
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture
def tiny(tmp_path: Path, store: Path) -> list[str]:
    """The overrides of a run of a few seconds, with its outputs in ``tmp_path``."""
    return [*TINY, f"outputs={tmp_path}", f"teacher.store={store}"]
