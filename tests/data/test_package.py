"""``kd_lightning.data`` re-exports the data sets and augmentations that a user names."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from kd_lightning import data

CONF = Path(__file__).parents[2] / "conf"
DATA = sorted((CONF / "data").glob("[!_]*.yaml"))
OPTIONAL_OR_SLOW = {"sklearn", "aeon", "litdata", "timm"}


def targets_in(path: Path) -> list[str]:
    """The classes of this package that a file of ``conf`` names."""
    lines = [line.strip().removeprefix("- ") for line in path.read_text().splitlines()]
    names = [line.split()[1] for line in lines if line.startswith("_target_:")]
    return [name for name in names if name.startswith("kd_lightning.data.")]


@pytest.mark.parametrize("name", data.__all__)
def test_every_name_in_all_can_be_imported(name: str) -> None:
    assert getattr(data, name).__module__.startswith("kd_lightning.data.")


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_every_data_set_is_exported(path: Path) -> None:
    target = get_object(OmegaConf.load(path)._target_)
    assert target.__name__ in data.__all__
    assert getattr(data, target.__name__) is target


def test_every_augmentation_in_conf_is_exported() -> None:
    names = {n for path in (CONF / "augmentation").glob("*.yaml") for n in targets_in(path)}
    assert len(names) > 3
    assert {name.rpartition(".")[2] for name in names} <= set(data.__all__)


def test_importing_the_package_loads_no_optional_or_slow_library() -> None:
    code = f"import sys, kd_lightning.data; print({OPTIONAL_OR_SLOW} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
