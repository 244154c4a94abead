"""The time of a training step of stochastic self-distillation, by the place of the dropout.

    python -m benchmarks.ssd_cost
    python -m benchmarks.ssd_cost --write         also into benchmarks/results/ssd_cost.md

Steps of the FCN of the studies on OSULeaf, on one thread. Each is compared in pairs
(``benchmarks/paired_timing.py``) with continued training, the same step without a teacher. The
column "rows" is the number of rows (inputs) that pass the teacher's trunk in a step.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from benchmarks.paired_timing import compare
from benchmarks.ratio_table import TOO_NOISY
from benchmarks.report import Report
from benchmarks.step_counts import CountedRows
from benchmarks.steps import Case, build_case
from kd_lightning.running.build import quieten

COMMON = ("data=ucr", "data.name=OSULeaf", "data.val_fraction=0", "model@method.teacher=fcn",
          "method.teacher.widths=[32,64,32]", "method=stochastic_self_distillation",
          "hardware=cpu")  # fmt: skip
ONLY_HEAD, ALSO_BLOCKS = "dropout.blocks=0.0", "dropout.blocks=0.1"
CONTROL = "A/A control"
ROWS = {
    CONTROL: (ONLY_HEAD, "method.feature_weight=0"),
    "deterministic feature": (ONLY_HEAD, "method.stochastic=false"),
    "before the classifier, K = 10": (ONLY_HEAD, "method.num_passes=10"),
    "before the classifier, K = 30": (ONLY_HEAD, "method.num_passes=30"),
    "also in the blocks, K = 8": (ALSO_BLOCKS, "method.num_passes=8"),
    "also in the blocks, K = 30": (ALSO_BLOCKS, "method.num_passes=30"),
}


def rows_of(case: Case) -> int:
    """How many rows pass the teacher's trunk in a step."""
    with CountedRows([case.method.teacher_for(case.batch[0]).trunk]) as teacher:
        case.step()()
    return teacher.forward


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ssd_cost", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pairs", type=int, default=15, help="of blocks per row")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    arguments = parser.parse_args(words)
    quieten()
    torch.set_num_threads(1)
    report = Report("ssd_cost", "The time of a step of stochastic self-distillation", words)
    report.add(
        f"Times relative to a step of continued training; medians of {arguments.pairs} pairs.\n"
    )
    report.add("| teacher's dropout | rows | step | 95 % interval |\n|---|---:|---:|---:|")
    for name, overrides in ROWS.items():
        # the student has the same dropout as the teacher, so the baseline needs it too
        plain = build_case(*COMMON, overrides[0], "method.feature_weight=0").step()
        case = build_case(*COMMON, *overrides)
        ratio = compare(case.step(), plain, arguments.pairs)
        if name == CONTROL:
            control = ratio
        interval = f"{ratio.low:.2f} to {ratio.high:.2f}"
        report.add(f"| {name} | {rows_of(case)} | {ratio.median:.2f} | {interval} |")
    if not control.contains_one:
        report.add(f"\n{TOO_NOISY}")
    if arguments.write:
        report.write()


if __name__ == "__main__":
    main()
