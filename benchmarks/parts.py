"""A step beside its parts: what it could at least cost."""

import time
from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.paired import Step
from benchmarks.rows import Rows, beside
from benchmarks.steps import LARGE, SMALL, TWO, Made, made, step_of

SERIES = ("data=ucr", "data.name=OSULeaf", "data.val_fraction=0", "model@method.teacher=fcn",
          "method.teacher.dropout=0.2", "method.teacher.block_dropout=0.0")  # fmt: skip


def teacher(hardware: Sequence[str]) -> Rows:
    """The teacher's pass over the plain float32 one, for few images and for as many as a step has:
    what folding and layout save is traffic, and few images lie in the processor's caches anyway.
    """
    large = ("ResNet-18, 112 px", (*LARGE, "model@method.teacher=resnet18"))
    small = ("resnet32x4, 32 px", (*SMALL, *TWO[:1]))
    for (name, words), batch in ((large, 4), (large, 32), (small, 32), (small, 64)):
        for precision in ("32", "best"):
            case = made("method=kd", *words, *hardware, "hardware.channels_last=true",
                        f"hardware.teacher_precision={precision}",
                        f"data.batch_size={batch}")  # fmt: skip
            plain = made("method=kd", *words, *hardware, "hardware.channels_last=false",
                         f"data.batch_size={batch}")  # fmt: skip
            net, x = plain.teacher.net, plain.batch[0]
            title = f"{name}, {batch} images, teacher_precision={precision} / float32"
            yield beside(title, case.ask(), without_graph(net, x))


def without_graph(net: nn.Module, x: torch.Tensor) -> Step:
    def ask() -> object:
        with torch.no_grad():
            return net(x)

    return ask


def dual(hardware: Sequence[str]) -> Rows:
    """A step of dual_student over its parts, and with the teacher's answers at hand."""
    for precision in ("32", "bf16-mixed"):
        words = (*SMALL, *hardware, f"hardware.precision={precision}")
        case = made("method=dual_student", *words, *TWO)
        alone = [
            made("method=supervised", *words, f"model@method.students.student={net}").step()
            for net in ("resnet8x4", "mobilenetv2_half")
        ]
        ask, dual_step = case.ask(), case.step()

        def parts(steps: Sequence[Step] = (ask, *alone)) -> None:
            for step in steps:
                step()

        title = f"dual / (teacher + both students from labels alone), {precision}"
        yield beside(title, dual_step, parts)

        def students(steps: Sequence[Step] = alone) -> None:
            for step in steps:
                step()

        cached = made("method=dual_student", *words, *TWO).with_answers()
        title = f"dual with a cache / both students from labels alone, {precision}"
        yield beside(title, cached.step(), students)


def compiled(hardware: Sequence[str]) -> Rows:
    """A step of dual_student as one compiled function over the step as it is."""
    for precision in ("32", "bf16-mixed"):
        words = ("method=dual_student", *SMALL, *TWO, *hardware, f"hardware.precision={precision}")
        fast, plain = made(*words, "hardware.compile=true").step(), made(*words).step()
        begun = time.monotonic()
        fast()
        yield f"Compiling it took {time.monotonic() - begun:.0f} s, {precision}."
        yield beside(f"dual, hardware.compile=true / as it is, {precision}", fast, plain)


def ssd(hardware: Sequence[str]) -> Rows:
    """A step of SSD, dropout before the classifier alone, over one of plain KD of the same nets."""
    plain = made(
        "method=kd", *SERIES, *hardware, "method.students.student=${method.teacher}"
    ).step()
    for passes in (10, 30):
        case = made("method=stochastic_self_distillation", *SERIES, *hardware,
                    f"method.num_passes={passes}")  # fmt: skip
        yield beside(f"SSD / KD, K = {passes}", case.step(), plain)
    case = made("method=stochastic_self_distillation", *SERIES, *hardware, "method.num_passes=30")
    yield beside("SSD / one pass after the other, K = 30", case.step(), one_after_the_other(case))


def one_after_the_other(case: Made) -> Step:
    """A step as the code released with the paper makes it, by its description: K whole passes of
    the teacher, one by one, no matter what of it is random.
    """
    ours = case.method
    student, net = ours.students["student"], case.teacher.net
    x, y = case.batch
    drop = nn.Dropout(net.dropout.p)

    def loss_now() -> torch.Tensor:
        with torch.no_grad():
            samples = torch.stack([drop(net(x).features) for _ in range(30)])
        output = student(x)
        weights, _ = ours.guidance(output.features.detach(), samples)
        target = (weights.T.unsqueeze(-1) * samples).sum(0)
        loss = nn.functional.cross_entropy(output.logits, y)
        return loss + (output.features - target).square().mean()

    return step_of(ours.parameters(), loss_now)
