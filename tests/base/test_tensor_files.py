"""Tensors are read as they were written, or not at all."""

from pathlib import Path

import pytest
import torch
from damage import DAMAGE, flip
from safetensors.torch import save_file

from kd_lightning.base.errors import Damaged
from kd_lightning.base.tensor_files import read_checkpoint, read_tensors, write_tensors

TENSORS = {
    "weight": torch.arange(12.0).view(3, 4),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.zeros(0, 3),
    "flags": torch.tensor([True, False]),
}
METADATA = {"kd_lightning": '{"class_names": ["cat", "dog"]}', "format": "pt"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "a.safetensors", TENSORS, METADATA)
    return tmp_path / "a.safetensors"


def test_they_are_read_as_they_were_written(path: Path) -> None:
    tensors, metadata = read_tensors(path)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named(damage: str, path: Path) -> None:
    DAMAGE[damage](path)
    with pytest.raises(Damaged, match=r"a\.safetensors is"):
        read_tensors(path)


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(path: Path) -> None:
    good, found = path.read_bytes(), 0
    for place in range(0, len(good), 3):
        flip(path, place)
        try:
            tensors, metadata = read_tensors(path)
        except Damaged:
            found += 1
        else:  # a space between two keys, or the name of the checksum
            assert metadata.items() >= METADATA.items()
            assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
        path.write_bytes(good)
    assert found > len(good) / 3 - 30


def test_a_flipped_bit_in_a_checkpoint_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"weight": torch.arange(400.0)}, "epoch": 3}, path)
    good, found = path.read_bytes(), 0
    for place in range(0, len(good), 11):
        flip(path, place)
        try:
            content = read_checkpoint(path)
        except Damaged:
            found += 1
        else:
            assert content["epoch"] == 3
            assert torch.equal(content["state_dict"]["weight"], torch.arange(400.0))
        path.write_bytes(good)
    assert found > 400 * 4 / 11  # in all of the weights


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"weight": torch.arange(400.0)}, path)
    DAMAGE[damage](path)
    with pytest.raises(Damaged, match=r"a\.ckpt is"):
        read_checkpoint(path, mmap=True)


def test_too_little_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "last.ckpt")

    def lack(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12")

    monkeypatch.setattr(torch, "load", lack)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    assert read_tensors(tmp_path / "a.safetensors")[1] == {}
