"""A step beside those of other libraries: of the same nets, weights, batch and optimizer.

Losses must agree before anything is timed.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import ClassVar

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.task import LogitDistillationTask
from torch import nn

from benchmarks.rows import Rows, beside
from benchmarks.steps import LARGE, SMALL, TWO, Made, made, step_of

NETS = ("model@method.teacher=resnet50", "model@method.students.student=resnet18",
        "data.batch_size=16")  # fmt: skip


def timm(hardware: Sequence[str]) -> Rows:
    """A KD step, ResNet-50 to ResNet-18, over that of timm's own task: as it is, in our layout."""
    for precision in ("32", "bf16-mixed"):
        words = ("method=kd", *LARGE, *hardware, *NETS, f"hardware.precision={precision}")
        for layout in (False, True):
            ours, theirs = words, (*words, f"hardware.channels_last={layout}")
            check_timm(theirs)
            step, task_step = made(*ours).step(), step_of_timm(made(*theirs))
            name = "channels last" if layout else "as it is"
            yield beside(f"KD / timm's LogitDistillationTask, {name}, {precision}", step, task_step)


def check_timm(words: Sequence[str]) -> None:
    """Fails where our loss and that of timm's task differ."""
    close(made(*words), step_of_timm(made(*words)))


def close(ours: Made, their_step: Callable[[], torch.Tensor]) -> None:
    """Fails where two losses differ by more than the rounding of the run's precision."""
    within = 1e-3 if ours.cfg.hardware.precision == 32 else 3e-2
    torch.testing.assert_close(ours.step()(), their_step(), rtol=within, atol=within)


class Logits(nn.Module):
    """A net of ours as others want one. It normalises its own input, on both sides."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        return self.net(x).logits


class NetForTimm(Logits):
    """What timm's task asks of a net besides."""

    num_classes, in_chans = 100, 3
    pretrained_cfg: ClassVar = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}


def step_of_timm(case: Made) -> Callable[[], torch.Tensor]:
    student, x, y = case.method.students["student"], *case.batch
    task = LogitDistillationTask(
        NetForTimm(student), NetForTimm(case.teacher.net), temperature=4.0, task_loss_weight=1.0,
        distill_loss_weight=1.0, verbose=False,
    )  # fmt: skip
    return step_of(student.parameters(), lambda: task(x, y)["loss"], case.low)


def torchdistill(hardware: Sequence[str]) -> Rows:
    """A step of dual_student over steps of two jobs of torchdistill, one for each student.

    "as it is": float32 and NCHW; "tuned": autocast to bf16 and channels last, as ours. Its teacher
    is put into eval mode on both: torchdistill itself leaves a frozen one in train mode.
    """
    if find_spec("torchdistill") is None:
        yield "Left out: torchdistill is not installed (`pip install kd_lightning[bench]`)."
        return
    words = ("method=dual_student", *SMALL, *TWO, *hardware)
    bf16 = (*words, "hardware.precision=bf16-mixed")
    as_it_is, tuned = (*words, "hardware.channels_last=false", "hardware.precision=32"), bf16
    check_torchdistill(as_it_is)
    check_torchdistill(tuned)
    for title, case, theirs in (
        ("dual, 32 / two jobs of torchdistill, as it is", made(*words, as_it_is[-1]), as_it_is),
        ("dual, bf16 / two jobs of torchdistill, as it is", made(*bf16), as_it_is),
        ("dual, bf16, with a cache / the same", made(*bf16).with_answers(), as_it_is),
        ("dual, bf16 / two jobs of torchdistill, tuned", made(*bf16), tuned),
    ):
        yield beside(title, case.step(), two_jobs(made(*theirs)))


def check_torchdistill(words: Sequence[str]) -> None:
    """Fails where our loss and the sum of two jobs' differ: that of dual_student is the same where
    every sample counts alike and no student has its peer for a target.
    """
    same = ("method.peer_weight=0", "confidence@method.confidence=uniform")
    close(made(*words, *same), two_jobs(made(*words)))


def two_jobs(case: Made) -> Callable[[], torch.Tensor]:
    """A step of each; gives the sum of their losses."""
    jobs = [job_of_torchdistill(case, key) for key in case.method.students]
    return lambda: torch.stack([step() for step in jobs]).sum()


def job_of_torchdistill(case: Made, student: str) -> Callable[[], torch.Tensor]:
    from torchdistill.core.distillation import get_distillation_box  # here: it may not be there

    x, y = case.batch
    loss = {
        "student_module_path": ".", "student_module_io": "output",
        "teacher_module_path": ".", "teacher_module_io": "output",
        "temperature": 4.0, "alpha": 1.0, "beta": 1.0,
    }  # fmt: skip
    term = {"criterion": {"key": "KDLoss", "kwargs": loss}, "weight": 1.0}
    config = {
        "num_epochs": 1,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": term}}},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 1e-3, "momentum": 0.9}},
    }
    box = get_distillation_box(
        Logits(case.teacher.net), Logits(case.method.students[student]), {}, config,
        device=x.device, device_ids=[], distributed=False, lr_factor=1.0,
    )  # fmt: skip
    box.pre_epoch_process(epoch=0)
    box.teacher_model.eval()

    def step() -> torch.Tensor:
        with case.low():
            loss = box.forward_process(x, y)
        box.post_forward_process(loss)
        return loss.detach()

    return step
