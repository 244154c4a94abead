"""How the time and memory of a training step grow with the size of the problem.

    python -m benchmarks.growth                   all tables, on one thread
    python -m benchmarks.growth students          some of them
    python -m benchmarks.growth --gpu             on a GPU
    python -m benchmarks.growth --write           also into benchmarks/results/growth.md

The size is the number of students, of dropout passes or of classes, or the side of an image.

- Time: the shortest of several steps, because other work on the machine only adds time.
- Memory: the most that a step holds in addition to what was held before it. On a GPU torch reports
  it. On a CPU it is computed from the profiler's list of what torch allocated and freed, so memory
  that libraries take directly from the system is not included.
- "Grows as": the exponent between a row and the row above. 0 means constant, 1 proportional.
- The steps of all rows take turns. A control, the first row built again, must take as long as the
  first row.
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

from benchmarks.paired_timing import Step
from benchmarks.report import Report
from benchmarks.steps import build_case
from kd_lightning.running.build import quieten

HEAD = ("| {} | ms per step | grows as | peak MB | grows as |", "|---:|---:|---:|---:|---:|")
KD = ("method=kd", "data=synthetic", "data.val_fraction=0")
SSD = ("method=stochastic_self_distillation", "data=ucr", "data.name=OSULeaf",
       "data.val_fraction=0", "model@method.teacher=fcn",
       "method.teacher.widths=[32,64,32]")  # fmt: skip
CONTROL_TOLERANCE = 0.1  # largest relative difference between the control and the first row
PASSES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Growth:
    """One table.

    Attributes:
        of: the name of the size.
        description: of the step that is measured.
        sizes: the measured values.
        words: a size -> the overrides of the run.
    """

    of: str
    description: str
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
    "students": Growth("students", "KD, from ResNet-20 to that many ResNet-8, 32 px, batches of 32",
                       (1, 2, 3, 4), students),
    "passes": Growth("K", "SSD on OSULeaf, a narrow FCN, dropout only before the classifier",
                     PASSES, passes(0.0)),
    "passes_in_blocks": Growth("K", "the same, dropout also in the blocks", PASSES, passes(0.1)),
    "classes": Growth("classes", "KD, from ResNet-20 to ResNet-8, 32 px, batches of 32",
                      (10, 100, 1000, 5000, 10_000, 21_000), classes),
    "size": Growth("px", "KD, from ResNet-20 to ResNet-8, batches of 8",
                   (16, 32, 64, 128, 256), size),
}  # fmt: skip


def lines_of(growth: Growth, hardware: Sequence[str], rounds: int) -> Iterator[str]:
    """The lines of a table; the last ones summarise the growth and say if it can be trusted."""
    with_control = [*growth.sizes, growth.sizes[0]]
    steps = [build_case(*growth.words(x), *hardware).step() for x in with_control]
    *times, control = shortest(steps, rounds)
    memory = [peak(step, gpu="hardware=gpu" in hardware) for step in steps[:-1]]
    powers = zip(
        ["", *map(two_places, exponents(growth.sizes, times))],
        ["", *map(two_places, exponents(growth.sizes, memory))],
        strict=True,
    )
    yield HEAD[0].format(growth.of)
    yield HEAD[1]
    for x, seconds, held, (time_power, memory_power) in zip(
        growth.sizes, times, memory, powers, strict=True
    ):
        yield f"| {x:,} | {seconds * 1e3:.1f} | {time_power} | {held / 1e6:.1f} | {memory_power} |"
    yield ""
    yield f"- time: {summary(growth.of, growth.sizes, times)}"
    yield f"- memory: {summary(growth.of, growth.sizes, memory)}"
    yield f"- control, the first row again: {control / times[0]:.2f} of its time"
    if abs(control / times[0] - 1) > CONTROL_TOLERANCE:
        yield ""
        yield f"**Too noisy**: the control is off by more than {CONTROL_TOLERANCE:.0%}."


def exponents(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """The power of x with which y grows, from each x to the next."""
    pairs = list(zip(xs, ys, strict=False))
    return [math.log(y2 / y1) / math.log(x2 / x1) for (x1, y1), (x2, y2) in pairwise(pairs)]


def two_places(power: float) -> str:
    return f"{round(power, 2) + 0:.2f}"  # + 0 turns -0.0 into 0.0


def summary(of: str, xs: Sequence[float], ys: Sequence[float]) -> str:
    """How many times larger the last y is, and from which x on y grows faster than sqrt(x)."""
    growth = f"{ys[-1] / ys[0]:.1f} times"
    fast = [power > 0.5 for power in exponents(xs, ys)]
    if not any(fast):
        return f"{growth}, nowhere faster than sqrt({of})"
    # only an uninterrupted run of fast intervals at the end counts: a single one may be noise
    start = len(fast)
    while start and fast[start - 1]:
        start -= 1
    if start == 0:
        return f"{growth}, everywhere faster than sqrt({of})"
    if start == len(fast):
        return f"{growth}, not faster than sqrt({of}) at the end"
    return f"{growth}, faster than sqrt({of}) from {of} = {xs[start]:,} on"


def shortest(steps: Sequence[Step], rounds: int) -> list[float]:
    """The shortest time of each step, in seconds. The steps take turns."""
    times: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 1):  # the first round warms up
        for step, step_times in zip(steps, times, strict=True):
            run_and_wait(step)  # not timed: it replaces the cache contents of the other steps
            start = time.perf_counter()
            run_and_wait(step)
            step_times += [time.perf_counter() - start] if number else []
    return [min(step_times) for step_times in times]


def run_and_wait(step: Step) -> None:
    """Runs a step and waits for the GPU."""
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak(step: Step, *, gpu: bool = False) -> int:
    """The most bytes that a step holds, in addition to those held before it."""
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = profiled.profiler.kineto_results.events()
    return highest_sum([event.nbytes() for event in events if event.name() == "[memory]"])


def highest_sum(changes: Sequence[int]) -> int:
    """The highest value of the running sum of changes."""
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
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)}; default: all")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--rounds", type=int, default=12, help="timed steps per row")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    arguments = parser.parse_args(words)
    if unknown := [name for name in arguments.tables if name not in TABLES]:
        parser.error(f"no table '{unknown[0]}': expected some of {', '.join(TABLES)}")
    quieten()
    torch.set_num_threads(1)
    hardware = ["hardware=gpu"] if arguments.gpu else ["hardware=cpu"]
    title = "How the time and memory of a training step grow"
    report = Report("growth", title, words, gpu=arguments.gpu)
    report.add(
        f"Time: the shortest of {arguments.rounds} steps. "
        "Memory: in addition to what was held before the step."
    )
    for name in arguments.tables or TABLES:
        growth = TABLES[name]
        report.add(f"\n## {name}\n\n{growth.description}.\n")
        for line in lines_of(growth, hardware, arguments.rounds):
            report.add(line)
    if arguments.write:
        report.write(arguments.tables)


if __name__ == "__main__":
    main()
