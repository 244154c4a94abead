"""What a step costs, beside what it could at least cost, and beside others' steps.

    python -m benchmarks.speed                    all tables
    python -m benchmarks.speed teacher ssd        some of them
    python -m benchmarks.speed --gpu              on a GPU
    python -m benchmarks.speed --write            also into benchmarks/results/speed.md

Ratios of times, measured in pairs on one thread (``benchmarks/paired.py``); below 1 is faster. Both
sides have the same nets, weights, batch, optimizer and precision, and where both give a loss the
two must agree before anything is timed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from benchmarks import parts, peers
from benchmarks.cached import cached
from benchmarks.rows import Rows, table
from benchmarks.steps import SMALL, made
from benchmarks.tiny import tiny
from benchmarks.written import Report
from kd_lightning.running.build import quieten

TABLES: dict[str, Callable[[Sequence[str]], Rows]] = {
    "teacher": parts.teacher,
    "dual": parts.dual,
    "compiled": parts.compiled,
    "cached": cached,
    "ssd": parts.ssd,
    "tiny": tiny,
    "timm": peers.timm,
    "torchdistill": peers.torchdistill,
}


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all if none")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--pairs", type=int, default=61)
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    given = parser.parse_args(words)
    if unknown := [name for name in given.tables if name not in TABLES]:
        parser.error(f"no table '{unknown[0]}': expected some of {', '.join(TABLES)}")
    quieten()
    torch.set_num_threads(1)
    hardware = ["hardware=gpu"] if given.gpu else ["hardware=cpu"]
    report = Report("speed", "What a step costs", words, gpu=given.gpu)
    report.say(f"Ratios of times, medians of {given.pairs} pairs; below 1 is faster.")
    control = made(
        "method=supervised", *SMALL, *hardware, "model@method.students.student=resnet8x4"
    ).step()
    for name in given.tables or TABLES:
        report.say(f"\n## {name}\n\n{' '.join(TABLES[name].__doc__.split())}\n")
        for line in table(TABLES[name](hardware), control, given.pairs):
            report.say(line)
    if given.write:
        report.write(given.tables)


if __name__ == "__main__":
    main()
