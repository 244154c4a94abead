"""What a training step of stochastic self-distillation costs, by where the teacher drops.

    python -m benchmarks.ssd_cost

Steps of the study's FCN on OSULeaf, on one thread, each against continued training (the same step
without a teacher) in blocks that alternate A B B A: the median of the ratios, with a bootstrap
interval, and an A/A control that shows how noisy the machine is. Rows: those of the
teacher's trunk in a step.
"""

import random
import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from kd_lightning.build import build_data, build_method, quieten
from kd_lightning.command_line import CONF
from kd_lightning.methods.base import Learner
from kd_lightning.teachers import Teacher, build_net

COMMON = ("data=ucr", "data.name=OSULeaf", "data.val_fraction=0", "model@method.teacher=fcn",
          "method.teacher.widths=[32,64,32]", "method=stochastic_self_distillation")  # fmt: skip
HEAD, BLOCKS = "dropout.blocks=0.0", "dropout.blocks=0.1"
ROWS = {
    "A/A control": (HEAD, "method.feature_weight=0"),
    "deterministic feature": (HEAD, "method.stochastic=false"),
    "before the classifier, K = 10": (HEAD, "method.num_passes=10"),
    "before the classifier, K = 30": (HEAD, "method.num_passes=30"),
    "in the blocks too, K = 8": (BLOCKS, "method.num_passes=8"),
    "in the blocks too, K = 30": (BLOCKS, "method.num_passes=30"),
}
PAIRS, STEPS = 15, 2


def step_of(*words: str) -> tuple[Callable[[], None], Callable[[], int]]:
    """A training step, and one that counts the rows that the teacher's trunk sees in it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*COMMON, *words])
    data = build_data(cfg)
    teacher = Teacher(build_net(cfg.method.teacher, 0, "teacher"), "untrained", "")
    method: Learner = build_method(cfg, teacher)
    method.train()
    optimizer = torch.optim.AdamW(method.students.parameters())
    batch = next(iter(data.loader("train")))

    def step() -> None:
        loss = method.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def rows() -> int:
        seen = []

        def count(module: torch.nn.Module, inputs: tuple[Tensor]) -> None:
            seen.append(len(inputs[0]))

        handle = teacher.net.trunk.register_forward_pre_hook(count)
        step()
        handle.remove()
        return sum(seen)

    return step, rows


def seconds(step: Callable[[], None]) -> float:
    begun = time.perf_counter()
    for _ in range(STEPS):
        step()
    return time.perf_counter() - begun


def ratio(a: Callable[[], None], b: Callable[[], None]) -> tuple[float, float, float]:
    """Median of time(a) / time(b) over pairs, and its 95 % bootstrap interval."""
    for _ in range(3):
        seconds(a), seconds(b)
    found = []
    for _ in range(PAIRS):
        a1, b1, b2, a2 = seconds(a), seconds(b), seconds(b), seconds(a)
        found.append((a1 + a2) / (b1 + b2))
    luck = random.Random(0)
    medians = sorted(statistics.median(luck.choices(found, k=PAIRS)) for _ in range(2000))
    return statistics.median(found), medians[50], medians[-51]


def main() -> None:
    """The command line."""
    quieten()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread; the step of continued training is 1\n")
    print("| teacher's dropout | rows | step | 95 % interval |\n|---|---:|---:|---:|")
    for name, words in ROWS.items():
        # the student has its twin's dropout, so each is compared with its own
        plain, _ = step_of(words[0], "method.feature_weight=0")
        step, rows = step_of(*words)
        median, low, high = ratio(step, plain)
        print(f"| {name} | {rows()} | {median:.2f} | {low:.2f} to {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
