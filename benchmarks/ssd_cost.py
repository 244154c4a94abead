"""What a training step of stochastic self-distillation costs, by where the teacher drops.

    python -m benchmarks.ssd_cost

Steps of the study's FCN on OSULeaf, on one thread, each against continued training (the same step
without a teacher), in pairs (``benchmarks/paired.py``). Rows: those of the teacher's trunk in a
step.
"""

import torch
from torch import Tensor

from benchmarks.paired import compare
from benchmarks.steps import Made, made
from kd_lightning.build import quieten

COMMON = ("data=ucr", "data.name=OSULeaf", "data.val_fraction=0", "model@method.teacher=fcn",
          "method.teacher.widths=[32,64,32]", "method=stochastic_self_distillation",
          "hardware=cpu")  # fmt: skip
HEAD, BLOCKS = "dropout.blocks=0.0", "dropout.blocks=0.1"
ROWS = {
    "A/A control": (HEAD, "method.feature_weight=0"),
    "deterministic feature": (HEAD, "method.stochastic=false"),
    "before the classifier, K = 10": (HEAD, "method.num_passes=10"),
    "before the classifier, K = 30": (HEAD, "method.num_passes=30"),
    "in the blocks too, K = 8": (BLOCKS, "method.num_passes=8"),
    "in the blocks too, K = 30": (BLOCKS, "method.num_passes=30"),
}
PAIRS = 15


def rows_of(case: Made) -> int:
    """How many rows the teacher's trunk sees in a step."""
    seen = []

    def count(module: torch.nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append(len(inputs[0]))

    handle = case.method.teacher_for(case.batch[0]).trunk.register_forward_pre_hook(count)
    case.step()()
    handle.remove()
    return sum(seen)


def main() -> None:
    """The command line."""
    quieten()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread; the step of continued training is 1\n")
    print("| teacher's dropout | rows | step | 95 % interval |\n|---|---:|---:|---:|")
    for name, words in ROWS.items():
        # the student has its twin's dropout, so each is compared with its own
        plain = made(*COMMON, words[0], "method.feature_weight=0").step()
        case = made(*COMMON, *words)
        found = compare(case.step(), plain, PAIRS)
        spread = f"{found.low:.2f} to {found.high:.2f}"
        print(f"| {name} | {rows_of(case)} | {found.median:.2f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
