"""What a training step of stochastic self-distillation costs, by where the teacher drops.

    python -m benchmarks.ssd_cost
    python -m benchmarks.ssd_cost --write         also into benchmarks/results/ssd_cost.md

Steps of the study's FCN on OSULeaf, on one thread, each against continued training (the same step
without a teacher), in pairs (``benchmarks/paired.py``). Rows: those of the teacher's trunk in a
step.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.paired import compare
from benchmarks.rows import TOO_NOISY
from benchmarks.steps import Made, made
from benchmarks.written import Report
from kd_lightning.running.build import quieten

COMMON = ("data=ucr", "data.name=OSULeaf", "data.val_fraction=0", "model@method.teacher=fcn",
          "method.teacher.widths=[32,64,32]", "method=stochastic_self_distillation",
          "hardware=cpu")  # fmt: skip
HEAD, BLOCKS = "dropout.blocks=0.0", "dropout.blocks=0.1"
CONTROL = "A/A control"
ROWS = {
    CONTROL: (HEAD, "method.feature_weight=0"),
    "deterministic feature": (HEAD, "method.stochastic=false"),
    "before the classifier, K = 10": (HEAD, "method.num_passes=10"),
    "before the classifier, K = 30": (HEAD, "method.num_passes=30"),
    "in the blocks too, K = 8": (BLOCKS, "method.num_passes=8"),
    "in the blocks too, K = 30": (BLOCKS, "method.num_passes=30"),
}


def rows_of(case: Made) -> int:
    """How many rows the teacher's trunk sees in a step."""
    seen = []

    def count(module: torch.nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append(len(inputs[0]))

    handle = case.method.teacher_for(case.batch[0]).trunk.register_forward_pre_hook(count)
    case.step()()
    handle.remove()
    return sum(seen)


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ssd_cost", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    given = parser.parse_args(words)
    quieten()
    torch.set_num_threads(1)
    report = Report("ssd_cost", "What a step of stochastic self-distillation costs", words)
    report.say(f"The step of continued training is 1; medians of {given.pairs} pairs.\n")
    report.say("| teacher's dropout | rows | step | 95 % interval |\n|---|---:|---:|---:|")
    for name, overrides in ROWS.items():
        # the student has its twin's dropout, so each is compared with its own
        plain = made(*COMMON, overrides[0], "method.feature_weight=0").step()
        case = made(*COMMON, *overrides)
        found = compare(case.step(), plain, given.pairs)
        if name == CONTROL:
            control = found
        spread = f"{found.low:.2f} to {found.high:.2f}"
        report.say(f"| {name} | {rows_of(case)} | {found.median:.2f} | {spread} |")
    if not control.is_one:
        report.say(f"\n{TOO_NOISY}")
    if given.write:
        report.write()


if __name__ == "__main__":
    main()
