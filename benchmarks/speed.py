"""The time of a training step: compared with its parts, and with steps of other libraries.

    python -m benchmarks.speed                    all tables
    python -m benchmarks.speed teacher ssd        some of them
    python -m benchmarks.speed --gpu              on a GPU
    python -m benchmarks.speed --write            also into benchmarks/results/speed.md

Ratios of times, measured in pairs on one thread (``benchmarks/paired_timing.py``); below 1 is
faster. Both sides have the same nets, weights, batch and optimizer, and the same precision unless
the row names two. The losses of other libraries, and of the bare loop, must agree with ours before
anything is timed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from benchmarks import other_libraries, step_parts
from benchmarks.cached_epochs import cached_epochs
from benchmarks.ratio_table import Rows, table
from benchmarks.report import Report
from benchmarks.steps import SMALL, build_case
from benchmarks.trainer_overhead import trainer_overhead
from kd_lightning.running.build import quieten

TABLES: dict[str, Callable[[Sequence[str]], Rows]] = {
    "teacher": step_parts.teacher,
    "dual": step_parts.dual,
    "compiled": step_parts.compiled,
    "cached": cached_epochs,
    "ssd": step_parts.ssd,
    "tiny": trainer_overhead,
    "timm": other_libraries.timm,
    "torchdistill": other_libraries.torchdistill,
}


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)}; default: all")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--pairs", type=int, default=61, help="of blocks per row")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    arguments = parser.parse_args(words)
    if unknown := [name for name in arguments.tables if name not in TABLES]:
        parser.error(f"no table '{unknown[0]}': expected some of {', '.join(TABLES)}")
    quieten()
    torch.set_num_threads(1)
    hardware = ["hardware=gpu"] if arguments.gpu else ["hardware=cpu"]
    report = Report("speed", "The time of a training step", words, gpu=arguments.gpu)
    report.add(f"Ratios of times, medians of {arguments.pairs} pairs; below 1 is faster.")
    control = build_case(
        "method=supervised", *SMALL, *hardware, "model@method.students.student=resnet8x4"
    ).step()
    for name in arguments.tables or TABLES:
        report.add(f"\n## {name}\n\n{' '.join(TABLES[name].__doc__.split())}\n")
        for line in table(TABLES[name](hardware), control, arguments.pairs):
            report.add(line)
    if arguments.write:
        report.write(arguments.tables)


if __name__ == "__main__":
    main()
