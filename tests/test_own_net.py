"""A user's own net: a function that returns a Classifier, and a YAML file in the user's folder."""

import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.running import way_back

NET = """
from torch import nn

from kd_lightning.models.classifier import Classifier, Prepare


def tiny(*, num_inputs, width, num_classes, mean, std):
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(num_inputs, width), nn.GELU())
    return Classifier(
        prepare=Prepare(mean, std), trunk=trunk, head=nn.Linear(width, num_classes), dropout=0.0
    )
"""
YAML = """
_target_: my_nets.tiny
num_inputs: ${task.num_inputs}
width: 20
num_classes: ${task.num_classes}
mean: ${task.mean}
std: ${task.std}
"""


def test_an_own_net_can_be_student_and_teacher_and_be_resumed(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_nets.py").write_text(NET)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(YAML)
    monkeypatch.syspath_prepend(tmp_path)
    result = distill(
        "method=kd",
        "model@method.teacher=mine",
        "method.teacher.width=64",
        "model@method.students.student=mine",
        *tiny,
        config_dir=tmp_path,
    )
    nets = result.metrics["nets"]
    assert nets["student"]["title"] == "student · tiny(20)"
    assert nets["teacher"]["parameters"] > 3 * nets["student"]["parameters"]

    # its record could be from somebody else
    with pytest.raises(UserError, match=r'asks to call my_nets.tiny, .*allow=\["my_nets"\]'):
        distill(f"resume={result.directory}")
    config = OmegaConf.load(result.directory / "config.yaml")
    (command,) = re.findall(
        r"kd_lightning.run (.*)", way_back.how_to_resume(config, result.directory)
    )
    assert distill(*shlex.split(command)).metrics["nets"].keys() == nets.keys()
