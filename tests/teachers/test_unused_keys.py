"""A key without an effect is refused in one sentence, before anything is trained."""

from pathlib import Path

import pytest
import timm
import torch
from helpers import TINY, compose

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.running.build import build_data
from kd_lightning.running.preflight import check_run
from kd_lightning.teachers.sources import get_teacher

TIMM = ("model@method.teacher=timm", "method.teacher.name=test_resnet")
STUDENT = "method.students.student"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.pt"
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), path)
    return path


def refusal(*words: str, outputs: Path) -> str:
    with pytest.raises(UserError) as raised:
        distill("method=kd", *TINY, f"outputs={outputs}", *words)
    assert not outputs.exists()
    return str(raised.value)


def test_a_file_that_is_not_there_is_said_before_what_it_would_need(tmp_path: Path) -> None:
    words = ["teacher.source=/no/net.pt", "teacher.class_order=[0,1]"]
    said = refusal(*words, outputs=tmp_path / "outputs")
    assert said.startswith("there is no file or folder /no/net.pt: teacher.source must be train")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [f"{STUDENT}.interpolation=nearest"],
            f"{STUDENT}.interpolation=nearest has no effect without {STUDENT}.input_size",
        ),
        (
            [f"{STUDENT}.weights_key=ema"],
            f"{STUDENT}.weights_key=ema has no effect with {STUDENT}.weights=none: give a file of "
            "weights there, or leave it out",
        ),
        (
            ["method.teacher.interpolation=nearest"],
            "method.teacher.interpolation=nearest has no effect without method.teacher.input_size",
        ),
        (
            ["method.teacher.weights_key=ema"],
            "leave it out (teacher.weights_key=… is for a file in teacher.source)",
        ),
        ([*TIMM, "method.teacher.require_head=true"], "require_head=true has no effect with"),
        ([*TIMM, "method.teacher.mean=[0.1,0.1,0.1]"], "and std=None (method.teacher.mean=…)"),
    ],
)
def test_keys_of_nets(words: list[str], said: str, tmp_path: Path) -> None:
    assert said in refusal(*words, outputs=tmp_path / "outputs")


def test_keys_of_a_net_whose_weights_are_those_of_another_file(file: Path, tmp_path: Path) -> None:
    words = [*TIMM, f"teacher.source={file}"]
    said = refusal(*words, f"method.teacher.weights={file}", outputs=tmp_path / "outputs")
    assert f"method.teacher.weights={file} has no effect with teacher.source={file}" in said
    said = refusal(*words, "method.teacher.interpolation=bicubic", outputs=tmp_path / "outputs")
    assert "method.teacher.interpolation=bicubic has no effect without method.teacher" in said


def test_keys_with_an_effect_are_taken(file: Path, tmp_path: Path) -> None:
    """Here the file gives the teacher a size, and the student is built for one size."""
    sized = tmp_path / "sized.pt"
    torch.save({"model": torch.load(file), "input_size": 48}, sized)
    cfg = compose("method=kd", *TINY, *TIMM, f"teacher.source={sized}",
                  "method.teacher.interpolation=bicubic", f"model@{STUDENT}=timm",
                  f"{STUDENT}.name=test_vit", f"{STUDENT}.interpolation=bicubic")  # fmt: skip
    data = build_data(cfg)
    check_run(cfg, data)
    teacher = get_teacher(cfg, data, train=pytest.fail, say=lambda note: None)
    assert (teacher.net.prepare.size, teacher.net.prepare.interpolation) == (48, "bicubic")
    cfg = compose("method=kd", *TINY, *TIMM, f"method.teacher.weights={file}",
                  "method.teacher.require_head=true")  # fmt: skip
    check_run(cfg, build_data(cfg))
