"""A run with a teacher from a file, of which only the check of the teacher is done."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import compose
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.running.build import build_data
from kd_lightning.running.teacher_check import check_on_val
from kd_lightning.teachers.sources import Teacher


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits.npz: train and val of the digits in one part."""
    folder = tmp_path_factory.mktemp("files")
    part = build_data(compose("data=digits", "data.val_fraction=0")).parts["train"]
    np.savez(folder / "digits.npz", x=part.x.numpy(), y=part.y.numpy())
    return folder


@pytest.fixture(scope="session")
def composed(files: Path) -> DictConfig:
    """The configuration of a run with a teacher from a file; composed once, which is slow."""
    return compose("method=kd", "data=arrays", f"data.root={files}/digits.npz", "hardware=cpu",
                   "teacher.source=teacher.ckpt", "data.test_fraction=0.1")  # fmt: skip


class Check:
    """The check of a net in a run, and what it said.

    Args:
        keys: their values differ from those of ``composed``.
        data: another data set.
    """

    def __init__(
        self,
        composed: DictConfig,
        keys: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        self.cfg = copy.deepcopy(composed)
        if data is not None:
            self.cfg.data = data
        for key, value in (keys or {}).items():
            OmegaConf.update(self.cfg, key, value, force_add=True)
        self.data = build_data(self.cfg)
        self.said: list[str] = []

    def __call__(self, net: nn.Module) -> dict | None:
        teacher = Teacher(net, "here", "net", class_order=list(self.data.class_names))
        return check_on_val(self.cfg, self.data, teacher, self.said.append)


@pytest.fixture
def make_check(composed: DictConfig, tmp_path: Path) -> Callable[..., Check]:
    """make_check({"teacher.check": "warn"}): the check of a run with other values."""
    return functools.partial(Check, OmegaConf.merge(composed, {"outputs": f"{tmp_path}/outputs"}))


@pytest.fixture
def check(make_check: Callable[..., Check]) -> Check:
    return make_check()
