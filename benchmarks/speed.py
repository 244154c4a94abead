"""What a step costs, beside what it could at least cost, and beside others' steps.

    python -m benchmarks.speed                    all tables; a quarter of an hour on 2 cores
    python -m benchmarks.speed teacher ssd        some of them
    python -m benchmarks.speed --gpu              on a GPU

Ratios of times, measured in pairs on one thread (``benchmarks/paired.py``); below 1 is faster. Both
sides have the same nets, weights, batch, optimizer and precision, and where both give a loss the
two must agree before anything is timed.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.task import LogitDistillationTask
from torch import nn

from benchmarks.paired import Step, compare
from benchmarks.steps import Made, made
from kd_lightning.build import quieten

Row = tuple[str, Step, Step]
SMALL = ("data=synthetic", "data.size=32", "data.num_classes=100", "data.batch_size=32")
LARGE = ("data=synthetic", "data.size=112", "data.num_classes=100", "data.batch_size=4",
         "data.num_train=100", "data.num_test=100", "data.val_fraction=0")  # fmt: skip
TWO = ("model@method.teacher=resnet32x4", "model@method.students.a=resnet8x4",
       "model@method.students.b=mobilenetv2_half")  # fmt: skip
NETS = ("model@method.teacher=resnet50", "model@method.students.student=resnet18")
SERIES = ("data=ucr", "data.name=OSULeaf", "data.val_fraction=0", "model@method.teacher=fcn",
          "method.teacher.dropout=0.2", "method.teacher.block_dropout=0.0")  # fmt: skip


def teacher(hardware: Sequence[str]) -> Iterator[Row]:
    """The teacher's pass over the plain float32 one."""
    for name, words in (("ResNet-18, 112 px", (*LARGE, "model@method.teacher=resnet18")),
                        ("resnet32x4, 32 px", (*SMALL, *TWO[:1]))):  # fmt: skip
        for precision in ("32", "best"):
            case = made("method=kd", *words, *hardware, "hardware.channels_last=true",
                        f"hardware.teacher_precision={precision}")  # fmt: skip
            plain = made("method=kd", *words, *hardware, "hardware.channels_last=false")
            net, x = plain.teacher.net, plain.batch[0]
            yield f"{name}, teacher_precision={precision}", case.ask(), without_graph(net, x)


def without_graph(net: nn.Module, x: torch.Tensor) -> Step:
    def ask() -> object:
        with torch.no_grad():
            return net(x)

    return ask


def dual(hardware: Sequence[str]) -> Iterator[Row]:
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

        yield f"dual / (teacher + both students from labels alone), {precision}", dual_step, parts

        def students(steps: Sequence[Step] = alone) -> None:
            for step in steps:
                step()

        cached = made("method=dual_student", *words, *TWO)
        cached.batch.append(answers(cached))
        yield (
            f"dual with a cache / both students from labels alone, {precision}",
            cached.step(),
            students,
        )


def answers(case: Made) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return case.method.to_keep(*case.batch)


def ssd(hardware: Sequence[str]) -> Iterator[Row]:
    """A step of SSD, dropout before the classifier alone, over one of plain KD of the same nets."""
    plain = made(
        "method=kd", *SERIES, *hardware, "method.students.student=${method.teacher}"
    ).step()
    for passes in (10, 30):
        case = made("method=stochastic_self_distillation", *SERIES, *hardware,
                    f"method.num_passes={passes}")  # fmt: skip
        yield f"SSD / KD, K = {passes}", case.step(), plain
    case = made("method=stochastic_self_distillation", *SERIES, *hardware, "method.num_passes=30")
    yield "SSD / one pass after the other, K = 30", case.step(), one_after_the_other(case)


def one_after_the_other(case: Made) -> Step:
    """A step as the code released with the paper makes it, by its description: K whole passes of
    the teacher, one by one, no matter what of it is random.
    """
    ours = case.method
    optimizer = torch.optim.SGD(ours.parameters(), lr=1e-3, momentum=0.9)
    student, net = ours.students["student"], case.teacher.net
    x, y = case.batch
    drop = nn.Dropout(net.dropout.p)

    def step() -> None:
        with torch.no_grad():
            samples = torch.stack([drop(net(x).features) for _ in range(30)])
        output = student(x)
        weights, _ = ours.guidance(output.features.detach(), samples)
        target = (weights.T.unsqueeze(-1) * samples).sum(0)
        loss = nn.functional.cross_entropy(output.logits, y)
        loss = loss + (output.features - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def timm(hardware: Sequence[str]) -> Iterator[Row]:
    """A KD step, ResNet-50 to ResNet-18, over that of timm's own task: as it is, in our layout."""
    for precision in ("32", "bf16-mixed"):
        words = (*LARGE, *hardware, *NETS, f"hardware.precision={precision}")
        for layout in (False, True):
            ours = made("method=kd", *words)
            theirs = made("method=kd", *words, f"hardware.channels_last={layout}")
            step, task_step = ours.step(), step_of_timm(theirs)
            torch.testing.assert_close(step(), task_step(), rtol=3e-2, atol=3e-2)
            name = "channels last" if layout else "as it is"
            yield f"KD / timm's LogitDistillationTask, {name}, {precision}", step, task_step


class Joined(nn.Module):
    """A net as timm's task wants it. It normalises its own input here too, on both sides."""

    num_classes, in_chans = 100, 3
    pretrained_cfg: ClassVar = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        return self.net(x).logits


def step_of_timm(case: Made) -> Callable[[], torch.Tensor]:
    student, x, y = case.method.students["student"], *case.batch
    task = LogitDistillationTask(
        Joined(student), Joined(case.teacher.net), temperature=4.0, task_loss_weight=1.0,
        distill_loss_weight=1.0, verbose=False,
    )  # fmt: skip
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3, momentum=0.9)

    def step() -> torch.Tensor:
        with case.low():
            loss = task(x, y)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


TABLES = {"teacher": teacher, "dual": dual, "ssd": ssd, "timm": timm}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all if none")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--pairs", type=int, default=61)
    given = parser.parse_args()
    if unknown := [name for name in given.tables if name not in TABLES]:
        parser.error(f"no table '{unknown[0]}': expected some of {', '.join(TABLES)}")
    quieten()
    torch.set_num_threads(1)
    hardware = ["hardware=gpu"] if given.gpu else ["hardware=cpu"]
    device = torch.cuda.get_device_name() if given.gpu else "one CPU thread"
    print(f"torch {torch.__version__}, {device}\n")
    print("| A / B | ratio | 95 % interval | of the shortest |\n|---|---:|---:|---:|")
    control = made(
        "method=supervised", *SMALL, *hardware, "model@method.students.student=resnet8x4"
    )
    rows: list[Row] = [("control, the same step twice", control.step(), control.step())]
    for name in given.tables or TABLES:
        for row in (*rows, *TABLES[name](hardware)):
            title, a, b = row
            found = compare(a, b, given.pairs)
            spread = f"{found.low:.2f} to {found.high:.2f}"
            print(f"| {title} | {found.median:.2f} | {spread} | {found.least:.2f} |", flush=True)
        rows = []


if __name__ == "__main__":
    main()
