"""How much longer one thing takes than another, on a machine that other things are running on.

In blocks that alternate A B B A, so that what drifts falls on both; the median of the pairs' ratios
with a bootstrap interval. A control, the same thing twice, must come out as 1: where its interval
does not hold 1, the machine was too noisy for any row of that table.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Step = Callable[[], object]
Times = tuple[float, float, float, float]  # seconds of blocks of A, B, B and A
BLOCK = 0.05  # seconds at least


@dataclass(frozen=True)
class Ratio:
    """Of two things' times.

    Attributes:
        median: of the pairs' ratios.
        low, high: its 95 % bootstrap interval.
        least: ratio of the shortest blocks.
    """

    median: float
    low: float
    high: float
    least: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f}), shortest {self.least:.2f}"

    @property
    def is_one(self) -> bool:
        """Whether the interval holds 1."""
        return self.low <= 1 <= self.high


def compare(a: Step, b: Step, pairs: int = 61) -> Ratio:
    """Time of ``a`` over that of ``b``."""
    for _ in range(3):
        a(), b()
    steps = max(1, round(BLOCK / min(seconds(a, 1), seconds(b, 1))))
    return ratio([tuple(seconds(step, steps) for step in (a, b, b, a)) for _ in range(pairs)])


def ratio(blocks: Sequence[Times]) -> Ratio:
    """What pairs of blocks come to, each block of equally many steps."""
    found = [(a1 + a2) / (b1 + b2) for a1, b1, b2, a2 in blocks]
    luck = random.Random(0)
    medians = sorted(statistics.median(luck.choices(found, k=len(found))) for _ in range(2000))
    shortest_a = min(min(a1, a2) for a1, _, _, a2 in blocks)
    shortest_b = min(min(b1, b2) for _, b1, b2, _ in blocks)
    return Ratio(statistics.median(found), medians[50], medians[-51], shortest_a / shortest_b)


def seconds(step: Step, steps: int) -> float:
    """Of a block of steps, to the end of what they set going on a GPU."""
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun
