"""Ranges of numbers, declared in the annotation of an argument.

    def __init__(self, *, temperature: Temperature = 4.0, rank: Annotated[int, Range(least=2)]):

``config.values`` reads them, for a run and for a constructor that is called from Python. A number
without a declared range must be finite and of a size that float32 can compute with.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

# The size of a number that is not 0: float32 holds its square, and divides by it
LARGEST, SMALLEST = 1e12, 1e-18


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that an argument takes; with a list, the lengths.

    Args:
        least, above: the lower bound, inside or outside of the range.
        most, below: the upper bound, likewise.
        limit: largest size of a number, for ranges whose meaning sets no bound; ``math.inf``: none,
            so that infinity is allowed too.
    """

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf
    limit: float = LARGEST

    def holds(self, value: float) -> bool:
        """Whether a number is in the range. NaN never is."""
        is_fine_size = value == 0 or SMALLEST <= abs(value) <= self.limit
        return self._is_within_bounds(value) and is_fine_size

    def words(self, value: float | None = None) -> str:
        """The range as the end of "must be …".

        Args:
            value: a number that it does not hold; None: any.
        """
        bounds = self.bounds()
        if value is None or not self._is_within_bounds(value):
            return bounds or "finite"
        if not bounds and math.isinf(value):
            return "finite"
        size = f">= {shown(SMALLEST)}" if abs(value) < SMALLEST else f"<= {shown(self.limit)}"
        return f"{bounds} and {size}" if bounds else f"{size} in size"

    def _is_within_bounds(self, value: float) -> bool:
        is_above = value > self.above or self.above == -math.inf
        is_below = value < self.below or self.below == math.inf
        return self.least <= value <= self.most and is_above and is_below

    def bounds(self) -> str:
        lowest, highest = max(self.least, self.above), min(self.most, self.below)
        includes_lowest, includes_highest = self.above < lowest, self.below > highest
        if lowest > -math.inf and highest < math.inf:
            start, end = "[" if includes_lowest else "(", "]" if includes_highest else ")"
            return f"in {start}{shown(lowest)}, {shown(highest)}{end}"
        if lowest > -math.inf:
            return f"{'>=' if includes_lowest else '>'} {shown(lowest)}"
        if highest < math.inf:
            return f"{'<=' if includes_highest else '<'} {shown(highest)}"
        return ""


def shown(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


FINITE = Range()

Count = Annotated[int, Range(least=1)]
CountOrZero = Annotated[int, Range(least=0)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
ShareAboveZero = Annotated[float, Range(above=0, most=1)]
ShareBelowOne = Annotated[float, Range(least=0, below=1)]
InnerShare = Annotated[float, Range(above=0, below=1)]
# T^2 multiplies differences that are as small as 1 / T^2: above the limit only rounding is left
Temperature = Annotated[float, Range(above=0, limit=10_000)]
Seed = Annotated[int, Range(least=0, limit=2**63 - 1)]
Counts = Annotated[Sequence[Count], Range(least=1)]
Four = tuple[Count, Count, Count, Count]
Classes = Annotated[int, Range(least=2)]
