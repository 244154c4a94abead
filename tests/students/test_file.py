"""What can be wrong with a received file is said in one sentence; a good file is complete."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from student_files import make_student, net_config

import kd_lightning
from kd_lightning.base.errors import UserError
from kd_lightning.students.file import METADATA, read_student, write_student


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_student(tmp_path, net_config("mlp", "grey", widths=[4]), "grey")[1]


def rewrite(path: Path, change: Any, **tensors: torch.Tensor) -> None:
    """Changes the description in a file, or replaces all of it by a text."""
    info, state = read_student(path)
    text = change if isinstance(change, str) else json.dumps({**info, **change})
    save_file({**state, **tensors}, path, metadata={METADATA: text})


def test_tensors_are_contiguous_in_float32_and_no_two_names_share_one(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(2, 3)
    state = {
        "a": shared,
        "b": shared,
        "turned": shared.T,
        "half": torch.tensor([0.5], dtype=torch.float16),
        "learnt": torch.nn.Parameter(torch.ones(2, dtype=torch.float64)),
        "count": torch.tensor(3),
    }
    stored = load_file(write_student(tmp_path, state, {}))
    assert {name: value.dtype for name, value in stored.items()} == {
        **dict.fromkeys(state, torch.float32), "count": torch.int64,
    }  # fmt: skip
    for name, value in state.items():
        assert torch.equal(stored[name], value.detach().to(stored[name].dtype))


def test_nothing_else_is_left_in_the_folder(path: Path) -> None:
    assert sorted(p.name for p in path.parent.iterdir()) == ["student.json", "student.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_a_file_that_was_cut_short_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="is not a complete safetensors file"):
        read_student(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "has format None, this version of kd_lightning reads format 1"),
        ({"format": 2}, "has format 2, this version of kd_lightning reads format 1"),
        ({"architecture": "resnet18"}, "has no valid architecture"),
        ({"architecture": {"arguments": {}}}, "has no valid architecture"),
        ({"architecture": {"timm": "resnet18", "arguments": {}}}, "has no valid architecture"),
        ({"class_names": "cat", "input": {}}, "has no valid class_names and input"),
        ({"class_names": ["cat"]}, "has 1 class names for a net of 3 classes"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(
    path: Path, change: Any, message: str
) -> None:
    rewrite(path, change)
    with pytest.raises(UserError, match=message):
        read_student(path)


def test_other_weights_are_no_student_file(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="holds weights, but is no student file"):
        read_student(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["hf-hub:some/net", "local-dir:/tmp", "resnet18x"])
def test_timm_gets_only_names_of_its_own_nets(path: Path, name: str) -> None:
    architecture = {"timm": name, "arguments": {"num_classes": 3, "in_chans": 1}, "head": "fc"}
    rewrite(path, {"architecture": architecture})
    with pytest.raises(UserError, match="unknown timm model"):
        kd_lightning.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_must_be_finite(path: Path, value: float) -> None:
    rewrite(path, {}, **{"head.bias": torch.tensor([0.0, value, 0.0])})
    with pytest.raises(UserError, match=r"the weights head.bias in .* are not all finite"):
        read_student(path)


def test_a_student_file_may_be_read_by_those_who_may_read_other_files(tmp_path: Path) -> None:
    _, path = make_student(tmp_path, net_config("mlp", "grey", widths=[4]), "grey")
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
