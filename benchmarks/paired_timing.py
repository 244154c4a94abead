"""The ratio of the times of two functions, measured on a machine that is also doing other work.

A and B are timed in blocks in the order A B B A, so that a slow drift of the machine affects both
equally. The result is the median of the pairs' ratios with a bootstrap interval. A control, the
same function timed against itself, must give a ratio of 1. If its interval does not contain 1, the
machine was too noisy for every row of that table.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Step = Callable[[], object]
Times = tuple[float, float, float, float]  # seconds of one block each of A, B, B and A
MIN_BLOCK_SECONDS = 0.05


@dataclass(frozen=True)
class Ratio:
    """Time of A over time of B.

    Attributes:
        median: of the pairs' ratios.
        low, high: its 95 % bootstrap interval.
        least: ratio of the shortest block of A and the shortest block of B.
    """

    median: float
    low: float
    high: float
    least: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f}), shortest {self.least:.2f}"

    @property
    def contains_one(self) -> bool:
        """Whether 1 is in the interval."""
        return self.low <= 1 <= self.high


def compare(a: Step, b: Step, pairs: int = 61) -> Ratio:
    """Time of ``a`` over time of ``b``."""
    for _ in range(3):
        a(), b()
    steps = max(1, round(MIN_BLOCK_SECONDS / min(block_seconds(a, 1), block_seconds(b, 1))))
    return ratio([tuple(block_seconds(step, steps) for step in (a, b, b, a)) for _ in range(pairs)])


def ratio(blocks: Sequence[Times]) -> Ratio:
    """The ratio from the times of blocks that all have the same number of steps."""
    ratios = [(a1 + a2) / (b1 + b2) for a1, b1, b2, a2 in blocks]
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
    shortest_a = min(min(a1, a2) for a1, _, _, a2 in blocks)
    shortest_b = min(min(b1, b2) for _, b1, b2, _ in blocks)
    return Ratio(statistics.median(ratios), medians[50], medians[-51], shortest_a / shortest_b)


def block_seconds(step: Step, steps: int) -> float:
    """Seconds of a block of steps, including the work that they started on a GPU."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
