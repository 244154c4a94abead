"""Mean, standard deviation, and what several tests at once do to a p-value."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from scipy import stats

# Accuracies are recorded in float32: differences closer than this are equal.
EQUAL = 1e-6


@dataclass(frozen=True)
class Sample:
    """Values of one thing under several seeds."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return sum(self.values) / self.n if self.n else math.nan

    @property
    def std(self) -> float:
        """With n - 1 in the denominator; nan for fewer than two values, or one without bounds."""
        if self.n < 2 or not all(map(math.isfinite, self.values)):
            return math.nan
        return math.sqrt(sum((value - self.mean) ** 2 for value in self.values) / (self.n - 1))

    @property
    def is_constant(self) -> bool:
        return self.n > 0 and max(self.values) - min(self.values) < EQUAL

    def interval(self) -> tuple[float, float] | None:
        """The mean's 95 % interval, by Student's t; None for fewer than two values."""
        if self.n < 2:
            return None
        if self.is_constant:
            return self.mean, self.mean
        half = float(stats.t.ppf(0.975, self.n - 1)) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    def p_value(self) -> float | None:
        """Two-sided, of the t test that the mean is 0; None where it is not defined: for fewer
        than two values, or equal ones.
        """
        if self.n < 2 or self.is_constant:
            return None
        t = self.mean / (self.std / math.sqrt(self.n))
        return float(2 * stats.t.sf(abs(t), self.n - 1))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; None, a test that could not be made, stays None."""
    made = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(made):
        highest = max(highest, min(1.0, p * (len(made) - rank)))
        adjusted[i] = highest
    return adjusted


def holm_within(
    families: Sequence[Hashable], p_values: Sequence[float | None]
) -> list[float | None]:
    """Holm's adjustment among the tests of the same family.

    Args:
        families: what family each test belongs to.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    for family in set(families):
        places = [i for i, other in enumerate(families) if other == family]
        for i, p in zip(places, holm([p_values[i] for i in places]), strict=True):
            adjusted[i] = p
    return adjusted


def wilcoxon(differences: Sequence[float]) -> float | None:
    """p-value of the signed-rank test, two-sided; None if no difference is left.

    Equal pairs are left out. With ties among the rest the exact distribution of the tied ranks is
    enumerated up to 13 differences, and approximated by a normal one above.
    """
    # rounded, or ties that float32 has blurred would count as order
    left = [round(value, 6) for value in differences if abs(value) >= EQUAL]
    if not left:
        return None
    ties = len({abs(value) for value in left}) < len(left)
    if not ties and len(left) <= 50:
        method: object = "exact"
    else:
        method = stats.PermutationMethod(n_resamples=2**13) if len(left) <= 13 else "asymptotic"
    return float(stats.wilcoxon(left, method=method).pvalue)
