"""Tables of benchmarks.speed: a training step compared with steps of other libraries.

Both sides have the same nets, weights, batch and optimizer. Their losses must agree before anything
is timed.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import ClassVar

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.task import LogitDistillationTask
from torch import nn

from benchmarks.ratio_table import Rows, ratio_row
from benchmarks.steps import LARGE, SMALL, TWO_STUDENTS, Case, build_case, step_of

NETS = ("model@method.teacher=resnet50", "model@method.students.student=resnet18",
        "data.batch_size=16")  # fmt: skip


def timm(hardware: Sequence[str]) -> Rows:
    """A KD step, ResNet-50 to ResNet-18, over a step of timm's task: as timm runs it ("as it is"),
    and in our memory layout.
    """
    for precision in ("32", "bf16-mixed"):
        words = ("method=kd", *LARGE, *hardware, *NETS, f"hardware.precision={precision}")
        for layout in (False, True):
            timm_words = (*words, f"hardware.channels_last={layout}")
            check_timm(timm_words)
            step, task_step = build_case(*words).step(), step_of_timm(build_case(*timm_words))
            name = "channels last" if layout else "as it is"
            title = f"KD / timm's LogitDistillationTask, {name}, {precision}"
            yield ratio_row(title, step, task_step)


def check_timm(words: Sequence[str]) -> None:
    """Raises if our loss and that of timm's task differ."""
    assert_same_loss(build_case(*words), step_of_timm(build_case(*words)))


def assert_same_loss(case: Case, other_step: Callable[[], torch.Tensor]) -> None:
    """Raises if two losses differ by more than the rounding of the run's precision."""
    tolerance = 1e-3 if case.cfg.hardware.precision == 32 else 3e-2
    torch.testing.assert_close(case.step()(), other_step(), rtol=tolerance, atol=tolerance)


class LogitsOnly(nn.Module):
    """One of our nets, returning only its logits as other libraries expect.

    It normalises its own input, in our steps and in theirs.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        return self.net(x).logits


class NetForTimm(LogitsOnly):
    """The same, with the attributes that timm's task needs."""

    num_classes, in_chans = 100, 3
    pretrained_cfg: ClassVar = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}


def step_of_timm(case: Case, *, compiled: bool = False) -> Callable[[], torch.Tensor]:
    student, x, y = case.method.students["student"], *case.batch
    task = LogitDistillationTask(
        NetForTimm(student), NetForTimm(case.teacher.net), temperature=4.0, task_loss_weight=1.0,
        distill_loss_weight=1.0, verbose=False,
    )  # fmt: skip
    task = torch.compile(task, dynamic=False) if compiled else task
    return step_of(student.parameters(), lambda: task(x, y)["loss"], case.precision)


def torchdistill(hardware: Sequence[str]) -> Rows:
    """A step of dual_student over the steps of two torchdistill jobs, one for each student.

    "as it is": float32 and NCHW; "tuned": autocast to bf16 and channels last, like ours. The
    teacher is in eval mode on both sides; torchdistill itself leaves a frozen one in train mode.
    """
    if find_spec("torchdistill") is None:
        yield "Left out: torchdistill is not installed (`pip install kd_lightning[bench]`)."
        return
    words = ("method=dual_student", *SMALL, *TWO_STUDENTS, *hardware)
    bf16 = (*words, "hardware.precision=bf16-mixed")
    as_it_is, tuned = (*words, "hardware.channels_last=false", "hardware.precision=32"), bf16
    check_torchdistill(as_it_is)
    check_torchdistill(tuned)
    float32 = build_case(*words, as_it_is[-1])
    for title, case, job_words in (
        ("dual, 32 / two jobs of torchdistill, as it is", float32, as_it_is),
        ("dual, bf16 / two jobs of torchdistill, as it is", build_case(*bf16), as_it_is),
        ("dual, bf16, with a cache / the same", build_case(*bf16).with_cached_teacher(), as_it_is),
        ("dual, bf16 / two jobs of torchdistill, tuned", build_case(*bf16), tuned),
    ):
        yield ratio_row(title, case.step(), two_jobs(build_case(*job_words)))


def check_torchdistill(words: Sequence[str]) -> None:
    """Raises if our loss differs from the sum of the losses of two jobs.

    For this check dual_student gives every sample the same weight and has no loss between peers;
    then both losses are the same.
    """
    same_loss = ("method.peer_weight=0", "confidence@method.confidence=uniform")
    assert_same_loss(build_case(*words, *same_loss), two_jobs(build_case(*words)))


def two_jobs(case: Case, *, compiled: bool = False) -> Callable[[], torch.Tensor]:
    """A step of a job for each student; returns the sum of their losses."""
    jobs = [job_of_torchdistill(case, key, compiled) for key in case.method.students]
    return lambda: torch.stack([step() for step in jobs]).sum()


def job_of_torchdistill(case: Case, student: str, compiled: bool) -> Callable[[], torch.Tensor]:
    from torchdistill.core.distillation import get_distillation_box  # here: it is optional

    x, y = case.batch
    loss = {
        "student_module_path": ".", "student_module_io": "output",
        "teacher_module_path": ".", "teacher_module_io": "output",
        "temperature": 4.0, "alpha": 1.0, "beta": 1.0,
    }  # fmt: skip
    fused = {"fused": True} if x.is_cuda else {}  # as in ``optimizer_of``
    term = {"criterion": {"key": "KDLoss", "kwargs": loss}, "weight": 1.0}
    config = {
        "num_epochs": 1,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": term}}},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 1e-3, "momentum": 0.9, **fused}},
    }
    nets = [LogitsOnly(net) for net in (case.teacher.net, case.method.students[student])]
    if compiled:
        for net in nets:
            net.compile(dynamic=False)
    box = get_distillation_box(
        *nets, {}, config,
        device=x.device, device_ids=[], distributed=False, lr_factor=1.0,
    )  # fmt: skip
    box.pre_epoch_process(epoch=0)
    box.teacher_model.eval()

    def step() -> torch.Tensor:
        with case.precision():
            loss = box.forward_process(x, y)
        box.post_forward_process(loss)
        return loss.detach()

    return step
