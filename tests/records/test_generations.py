"""The newest checkpoint that is good is the one that a run resumes from."""

import os
from pathlib import Path

import pytest
import torch
from damage import DAMAGE

from kd_lightning.base.errors import Damaged
from kd_lightning.records.generations import (
    choose_checkpoint,
    good_checkpoint,
    has_checkpoint,
    next_generation,
)


def write(directory: Path, epoch: int) -> None:
    with next_generation(directory) as path:
        torch.save({"epoch": epoch}, path)


def epoch_in(path: Path) -> int:
    return torch.load(path, weights_only=True)["epoch"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for epoch in range(3):
        write(tmp_path, epoch)
    return tmp_path


def test_two_generations_are_kept(directory: Path) -> None:
    assert {path.name: epoch_in(path) for path in directory.iterdir()} == {
        "last.ckpt": 2,
        "previous.ckpt": 1,
    }
    said: list[str] = []
    assert choose_checkpoint(directory, said.append) == directory / "last.ckpt"
    assert said == []


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path)
    assert choose_checkpoint(tmp_path, print) is None


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_set_aside_and_the_one_before_is_used(
    damage: str, directory: Path
) -> None:
    DAMAGE[damage](directory / "last.ckpt")
    said: list[str] = []
    chosen = choose_checkpoint(directory, said.append)
    assert epoch_in(chosen) == 1
    (sentence,) = said
    state = "missing" if damage == "missing" else "damaged (set aside as last.ckpt.damaged)"
    assert sentence == f"{directory / 'last.ckpt'} is {state}: resumed from previous.ckpt, " \
        "which is older"  # fmt: skip
    write(directory, 2)  # the good one is still there
    assert (epoch_in(directory / "previous.ckpt"), epoch_in(directory / "last.ckpt")) == (1, 2)
    assert (directory / "last.ckpt.damaged").exists() == (damage != "missing")


@pytest.mark.parametrize("damage", DAMAGE)
def test_if_none_is_good_nothing_is_touched_and_the_advice_helps(
    damage: str, directory: Path
) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        DAMAGE[damage](directory / name)
    if damage == "missing":
        assert good_checkpoint(directory) is None
        return
    before = sorted(directory.iterdir())
    with pytest.raises(Damaged, match=r"remove last.ckpt and previous.ckpt, and the run begins"):
        choose_checkpoint(directory, print)
    assert sorted(directory.iterdir()) == before


@pytest.mark.parametrize("killed_at", range(3))
def test_a_kill_while_one_is_written_leaves_a_good_one(
    killed_at: int, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, steps = os.replace, []

    def dying(*paths: Path) -> None:
        if len(steps) == killed_at:
            raise KeyboardInterrupt
        steps.append(paths)
        replace(*paths)

    monkeypatch.setattr(os, "replace", dying)
    if killed_at < 2:
        with pytest.raises(KeyboardInterrupt):
            write(directory, 3)
    else:
        write(directory, 3)
    assert epoch_in(good_checkpoint(directory)) == [2, 2, 3][killed_at]
