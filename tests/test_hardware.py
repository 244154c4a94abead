"""The settings of conf/hardware: layout and precision change results only by rounding."""

from typing import Any

import pytest
import torch
from helpers import compose, of_method
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.config.schema import check_configuration
from kd_lightning.methods.distiller import Distiller
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.inference import PrecisionWrapper
from kd_lightning.running.build import build_data, build_method
from kd_lightning.teachers.sources import Teacher, build_net

WORDS = ("method=kd", "data=synthetic", "data.num_train=32", "data.batch_size=16",
         "model@method.teacher=resnet8", "model@method.students.student=resnet8",
         "hardware=cpu")  # fmt: skip


def built(*words: str) -> tuple[Distiller, list[torch.Tensor]]:
    cfg = compose(*WORDS, *words)
    data = build_data(cfg)
    method = build_method(cfg, Teacher(build_net(cfg.method.teacher, 1, "teacher"), "", ""))
    return method.train(), next(iter(data.loader("train")))


@pytest.mark.parametrize("channels_last", [True, False])
def test_students_and_teacher_have_the_layout(channels_last: bool) -> None:
    method, batch = built(f"hardware.channels_last={channels_last}")
    method.training_step(batch, 0)
    for net in (method.students["student"], method.teacher, method._fast_teacher):
        convs = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1]
        wide = [w for w in convs if w.shape[2] > 1]  # for 1 x 1 kernels both layouts are the same
        assert len(wide) > 3
        layouts = {w.is_contiguous(memory_format=torch.channels_last) for w in wide}
        assert layouts == {channels_last}


def test_the_layout_changes_the_loss_only_by_rounding() -> None:
    losses = []
    for channels_last in (True, False):
        method, batch = built(f"hardware.channels_last={channels_last}")
        losses.append(method.training_step(batch, 0))
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    ("words", "dtype"),
    [
        ([], torch.float32),
        (["hardware.precision=bf16-mixed"], torch.bfloat16),
        (["hardware.teacher_precision=bf16"], torch.bfloat16),
        (["hardware.teacher_precision=16"], torch.float16),
        (["hardware.precision=bf16-mixed", "hardware.teacher_precision=32"], torch.float32),
    ],
)
def test_the_fast_copy_has_the_precision_of_the_run_or_of_the_teacher(
    words: list[str], dtype: torch.dtype
) -> None:
    method, batch = built(*words)
    method.training_step(batch, 0)
    assert isinstance(method._fast_teacher.trunk, PrecisionWrapper)
    assert method._fast_teacher.trunk.dtype == dtype
    assert not [m for m in method._fast_teacher.modules() if isinstance(m, _BatchNorm)]
    assert not [name for name in method.state_dict() if "twin" in name or "teacher" in name]


def test_the_fast_copy_is_made_once_and_again_after_the_method_moved() -> None:
    method, batch = built()
    method.training_step(batch, 0)
    copy = method._fast_teacher
    method.training_step(batch, 0)
    assert method._fast_teacher is copy
    method.to(torch.float32)
    assert method._fast_teacher is None


def test_the_fast_copy_has_the_outputs_of_the_teacher() -> None:
    method, (x, _) = built()
    fast = method.teacher_output(x)
    with torch.no_grad():
        plain = method.teacher(x)
    torch.testing.assert_close(fast.logits, plain.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.features, plain.features, rtol=1e-4, atol=1e-4)
    assert method._fast_teacher is not method.teacher


class Viewing(nn.Module):
    """Like a LeNet: its ``view`` fails if channels are not first in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).view(len(x), -1)


def viewing(num_classes: int, **_: object) -> Classifier:
    return Classifier(trunk=Viewing(), head=nn.Linear(1024, num_classes), dropout=0.0)


@pytest.mark.parametrize("role", ["students.student", "teacher"])
def test_a_net_that_needs_the_other_layout_is_refused_with_the_key(role: str) -> None:
    factory = f"method.{role}._target_={viewing.__module__}.viewing"
    with pytest.raises(UserError, match=rf"^method.{role} takes samples, but .*channels_last=fals"):
        built(factory)
    built(factory, "hardware.channels_last=false")


def test_a_precision_that_does_not_exist_is_refused() -> None:
    cfg = compose(*WORDS, "hardware.teacher_precision=8")
    with pytest.raises(UserError, match="teacher_precision must be best or bf16 or 16 or 32 or nu"):
        check_configuration(cfg)


@pytest.mark.slow
def test_a_run_with_a_compiled_teacher(tiny: list[str]) -> None:
    result = distill("method=kd", *tiny, "hardware.compile_teacher=true")
    assert result.metrics["nets"]["student"]["test"]["accuracy"] > 0


def test_a_step_that_overflows_in_fp16_is_left_out_without_a_warning(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1e30)  # such gradients overflow in float16

    def on_a_cpu(**settings: Any) -> Trainer:
        own = {"precision": None, "plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
        return Trainer(**settings | own)

    monkeypatch.setattr("kd_lightning.running.trainer.Trainer", on_a_cpu)
    distill("method=supervised", *of_method("supervised", tiny))  # pytest makes errors of warnings
    assert scaler.get_scale() < 1e30
