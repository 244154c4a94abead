"""Tables of benchmarks.speed: a training step compared with its parts, and with the same step
without one of our optimizations.
"""

import time
from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.paired_timing import Step
from benchmarks.ratio_table import Rows, ratio_row
from benchmarks.steps import LARGE, SMALL, TWO_STUDENTS, Case, build_case, step_of

SERIES = ("data=ucr", "data.name=OSULeaf", "data.val_fraction=0", "model@method.teacher=fcn",
          "method.teacher.dropout=0.2", "method.teacher.block_dropout=0.0")  # fmt: skip


def teacher(hardware: Sequence[str]) -> Rows:
    """The teacher's forward pass over its plain float32 pass, for a few images and for a usual
    batch. Folding and memory layout save memory traffic; a few images fit into the processor's
    caches, so they gain less.
    """
    large = ("ResNet-18, 112 px", (*LARGE, "model@method.teacher=resnet18"))
    small = ("resnet32x4, 32 px", (*SMALL, *TWO_STUDENTS[:1]))
    for (name, words), batch in ((large, 4), (large, 32), (small, 32), (small, 64)):
        for precision in ("32", "best"):
            case = build_case("method=kd", *words, *hardware, "hardware.channels_last=true",
                              f"hardware.teacher_precision={precision}",
                              f"data.batch_size={batch}")  # fmt: skip
            plain = build_case("method=kd", *words, *hardware, "hardware.channels_last=false",
                               f"data.batch_size={batch}")  # fmt: skip
            net, x = plain.teacher.net, plain.batch[0]
            title = f"{name}, {batch} images, teacher_precision={precision} / float32"
            yield ratio_row(title, case.teacher_step(), forward_without_gradient(net, x))


def forward_without_gradient(net: nn.Module, x: torch.Tensor) -> Step:
    def step() -> object:
        with torch.no_grad():
            return net(x)

    return step


def dual(hardware: Sequence[str]) -> Rows:
    """A step of dual_student over the sum of its parts; and, with a cache of the teacher's outputs,
    over both students' steps from labels only.
    """
    for precision in ("32", "bf16-mixed"):
        words = (*SMALL, *hardware, f"hardware.precision={precision}")
        case = build_case("method=dual_student", *words, *TWO_STUDENTS)
        alone = [
            build_case("method=supervised", *words, f"model@method.students.student={net}").step()
            for net in ("resnet8x4", "mobilenetv2_half")
        ]
        teacher_step, dual_step = case.teacher_step(), case.step()

        def parts(steps: Sequence[Step] = (teacher_step, *alone)) -> None:
            for step in steps:
                step()

        title = f"dual / (teacher + both students from labels alone), {precision}"
        yield ratio_row(title, dual_step, parts)

        def students(steps: Sequence[Step] = alone) -> None:
            for step in steps:
                step()

        cached = build_case("method=dual_student", *words, *TWO_STUDENTS).with_cached_teacher()
        title = f"dual with a cache / both students from labels alone, {precision}"
        yield ratio_row(title, cached.step(), students)


def compiled(hardware: Sequence[str]) -> Rows:
    """A compiled step of dual_student over the step that is not compiled."""
    for precision in ("32", "bf16-mixed"):
        words = ("method=dual_student", *SMALL, *TWO_STUDENTS, *hardware,
                 f"hardware.precision={precision}")  # fmt: skip
        fast, plain = build_case(*words, "hardware.compile=true").step(), build_case(*words).step()
        start = time.monotonic()
        fast()
        yield f"Compiling it took {time.monotonic() - start:.0f} s, {precision}."
        yield ratio_row(f"dual, hardware.compile=true / as it is, {precision}", fast, plain)


def ssd(hardware: Sequence[str]) -> Rows:
    """A step of SSD with dropout only before the classifier, over a step of plain KD with the same
    nets.
    """
    plain = build_case(
        "method=kd", *SERIES, *hardware, "method.students.student=${method.teacher}"
    ).step()
    words = ("method=stochastic_self_distillation", *SERIES, *hardware)
    for passes in (10, 30):
        case = build_case(*words, f"method.num_passes={passes}")
        yield ratio_row(f"SSD / KD, K = {passes}", case.step(), plain)
    case = build_case(*words, "method.num_passes=30")
    yield ratio_row("SSD / one pass after the other, K = 30", case.step(), sequential_passes(case))


def sequential_passes(case: Case) -> Step:
    """A step like that of the code released with the paper, by its description: K full passes of
    the teacher, one after the other, even if only a small part of the teacher is random.
    """
    method = case.method
    student, net = method.students["student"], case.teacher.net
    x, y = case.batch
    dropout = nn.Dropout(net.dropout.p)

    def compute_loss() -> torch.Tensor:
        with torch.no_grad():
            samples = torch.stack([dropout(net(x).features) for _ in range(30)])
        output = student(x)
        weights, _ = method.guidance(output.features.detach(), samples)
        target = (weights.T.unsqueeze(-1) * samples).sum(0)
        loss = nn.functional.cross_entropy(output.logits, y)
        return loss + (output.features - target).square().mean()

    return step_of(method.parameters(), compute_loss, case.precision)
