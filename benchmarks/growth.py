"""How a step's time and memory grow with what it is asked to do.

    python -m benchmarks.growth                   all tables, on one thread
    python -m benchmarks.growth students          some of them
    python -m benchmarks.growth --gpu             on a GPU
    python -m benchmarks.growth --write           also into benchmarks/results/growth.md

Against the number of students, of dropout passes, of classes, and the size of an image. The time is
the shortest of several steps: what the machine does besides only adds to it. The memory is the most
that a step holds above what is there before it: on a GPU by torch's own account of the device, on a
CPU the sum over the profiler's record of what torch allocated and freed (so without what libraries
take from the system themselves). "Grows as" is the exponent between a row and the one above: 0 is
flat, 1 is proportional. All rows of a table take turns, and a control, the first row made again,
must take as long as that.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.paired import Step
from benchmarks.steps import made
from benchmarks.written import Report
from kd_lightning.running.build import quieten

HEAD = ("| {} | ms a step | grows as | MB at most | grows as |", "|---:|---:|---:|---:|---:|")
KD = ("method=kd", "data=synthetic", "data.val_fraction=0")
SSD = ("method=stochastic_self_distillation", "data=ucr", "data.name=OSULeaf",
       "data.val_fraction=0", "model@method.teacher=fcn",
       "method.teacher.widths=[32,64,32]")  # fmt: skip
TRUSTED = 0.1  # how far off a control may be
PASSES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Growth:
    """One table.

    Attributes:
        of: what grows.
        said: what is measured, in words.
        sizes: that are measured.
        words: a size -> the overrides of a run.
    """

    of: str
    said: str
    sizes: Sequence[int]
    words: Callable[[int], Sequence[str]]


def students(count: int) -> list[str]:
    names = "abcd"[:count]
    nets = [f"+model@method.students.{name}=resnet8" for name in names]
    return [*KD, "data.size=32", "data.batch_size=32", "~model@method.students.student",
            "model@method.teacher=resnet20", *nets]  # fmt: skip


def passes(blocks: float) -> Callable[[int], list[str]]:
    return lambda count: [*SSD, f"dropout.blocks={blocks}", f"method.num_passes={count}"]


def classes(count: int) -> list[str]:
    return [*KD, "data.size=32", "data.batch_size=32", f"data.num_classes={count}",
            f"data.num_train={max(count, 512)}", "model@method.teacher=resnet20",
            "model@method.students.student=resnet8"]  # fmt: skip


def size(side: int) -> list[str]:
    return [*KD, f"data.size={side}", "data.batch_size=8", "data.num_train=16", "data.num_test=16",
            "model@method.teacher=resnet20", "model@method.students.student=resnet8"]  # fmt: skip


TABLES = {
    "students": Growth("students", "KD, ResNet-20 to so many ResNet-8, 32 px, batches of 32",
                       (1, 2, 3, 4), students),
    "passes": Growth("K", "SSD on OSULeaf, a narrow FCN, dropout before the classifier alone",
                     PASSES, passes(0.0)),
    "passes_in_blocks": Growth("K", "the same, dropout in the blocks too", PASSES, passes(0.1)),
    "classes": Growth("classes", "KD, ResNet-20 to ResNet-8, 32 px, batches of 32",
                      (10, 100, 1000, 5000, 10_000, 21_000), classes),
    "size": Growth("px", "KD, ResNet-20 to ResNet-8, batches of 8",
                   (16, 32, 64, 128, 256), size),
}  # fmt: skip


def lines_of(growth: Growth, hardware: Sequence[str], rounds: int) -> Iterator[str]:
    """The lines of a table; the last say where it bends, and whether it can be trusted."""
    made_again = [*growth.sizes, growth.sizes[0]]
    steps = [made(*growth.words(x), *hardware).step() for x in made_again]
    *times, control = shortest(steps, rounds)
    sizes = [peak(step, gpu="hardware=gpu" in hardware) for step in steps[:-1]]
    powers = zip(
        ["", *map(two_places, exponents(growth.sizes, times))],
        ["", *map(two_places, exponents(growth.sizes, sizes))],
        strict=True,
    )
    yield HEAD[0].format(growth.of)
    yield HEAD[1]
    for x, time_of, size_of, (of_time, of_size) in zip(
        growth.sizes, times, sizes, powers, strict=True
    ):
        yield f"| {x:,} | {time_of * 1e3:.1f} | {of_time} | {size_of / 1e6:.1f} | {of_size} |"
    yield ""
    yield f"- time: {bend(growth.of, growth.sizes, times)}"
    yield f"- memory: {bend(growth.of, growth.sizes, sizes)}"
    yield f"- control, the first row again: {control / times[0]:.2f} of its time"
    if abs(control / times[0] - 1) > TRUSTED:
        yield ""
        yield f"**Too noisy**: the control is off by more than {TRUSTED:.0%}."


def exponents(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """By which power of x y grows, from each x to the next."""
    pairs = list(zip(xs, ys, strict=False))
    return [math.log(y2 / y1) / math.log(x2 / x1) for (x1, y1), (x2, y2) in pairwise(pairs)]


def two_places(power: float) -> str:
    return f"{round(power, 2) + 0:.2f}"  # + 0: there is no -0.00


def bend(of: str, xs: Sequence[float], ys: Sequence[float]) -> str:
    """From where on y grows faster than the root of x, in words."""
    steep = [power > 0.5 for power in exponents(xs, ys)]
    if not any(steep):
        return f"{ys[-1] / ys[0]:.1f} times, nowhere faster than the root of {of}"
    # the last stretch that is steep throughout: one steep step among flat ones is noise
    start = len(steep)
    while start and steep[start - 1]:
        start -= 1
    if start == 0:
        return f"{ys[-1] / ys[0]:.1f} times, faster than the root of {of} throughout"
    if start == len(steep):
        return f"{ys[-1] / ys[0]:.1f} times, flat at the end"
    return f"{ys[-1] / ys[0]:.1f} times; it bends at {of} = {xs[start]:,}"


def shortest(steps: Sequence[Step], rounds: int) -> list[float]:
    """Seconds of each step, the shortest of those it takes in turn with the others."""
    times: list[list[float]] = [[] for _ in steps]
    for each in range(rounds + 1):  # the first sets things up
        for step, found in zip(steps, times, strict=True):
            waited(step)  # or it would find the caches as the step before it left them
            begun = time.perf_counter()
            waited(step)
            found += [time.perf_counter() - begun] if each else []
    return [min(found) for found in times]


def waited(step: Step) -> None:
    """A step, to its end on a GPU too."""
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak(step: Step, *, gpu: bool = False) -> int:
    """Bytes that a step holds at most, above those that are held before it."""
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = seen.profiler.kineto_results.events()
    return highest([event.nbytes() for event in events if event.name() == "[memory]"])


def highest(changes: Sequence[int]) -> int:
    """The most that changes add up to on their way."""
    total = most = 0
    for change in changes:
        total += change
        most = max(most, total)
    return most


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all if none")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each row")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    given = parser.parse_args(words)
    if unknown := [name for name in given.tables if name not in TABLES]:
        parser.error(f"no table '{unknown[0]}': expected some of {', '.join(TABLES)}")
    quieten()
    torch.set_num_threads(1)
    hardware = ["hardware=gpu"] if given.gpu else ["hardware=cpu"]
    report = Report("growth", "How a step grows", words, gpu=given.gpu)
    report.say(f"Time: the shortest of {given.rounds} steps. Memory: above what is held before.")
    for name in given.tables or TABLES:
        growth = TABLES[name]
        report.say(f"\n## {name}\n\n{growth.said}.\n")
        for line in lines_of(growth, hardware, given.rounds):
            report.say(line)
    if given.write:
        report.write(given.tables)


if __name__ == "__main__":
    main()
