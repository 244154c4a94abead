"""Axes of charts: which values they span, where their ticks are, and how numbers are written."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

NUM_TICKS = 5


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: what it shows, with the unit.
        low, high: the values at its ends.
        ticks: the values that have a mark and a number.
        is_log: whether equal distances are equal ratios.
    """

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool = False

    def position(self, value: float) -> float:
        """0 at the low end, 1 at the high end. Values beyond an end are drawn at this end."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


def linear_axis(label: str, values: Iterable[float]) -> Axis:
    """An axis that spans the values, with a little room at both ends."""
    low, high = _ends(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    room = 0.04 * (high - low)
    low, high = (low if low == 0 else low - room), high + room
    step = _step((high - low) / NUM_TICKS)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(label, low, high, tuple(i * step for i in range(first, last + 1)))


def log_axis(label: str, values: Iterable[float]) -> Axis:
    """A logarithmic axis that spans the positive values, with a little room at both ends."""
    low, high = _ends(value for value in values if value > 0)
    room = max(1.15, (high / low) ** 0.06)
    low, high = low / room, high * room
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        ticks = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(ticks) >= 3:
            break
    every = math.ceil(len(ticks) / (NUM_TICKS + 1))
    return Axis(label, low, high, tuple(ticks[::every]), is_log=True)


def unit_axis(label: str) -> Axis:
    """From 0 to 1."""
    return Axis(label, 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))


def _ends(values: Iterable[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (0.0, 1.0)


def _step(rough: float) -> float:
    """The next larger 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def short(value: float) -> str:
    """A number as a tick shows it: 0.5, 40, 12k, 3M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.4g}{unit}"
    return f"{value:.4g}".replace("-", "−")
