"""Mean, standard deviation, intervals and tests of results over several seeds."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from scipy import stats

# Accuracies are stored in float32: values closer than this count as equal.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Sample:
    """The values of one quantity under several seeds."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return sum(self.values) / self.n if self.n else math.nan

    @property
    def std(self) -> float:
        """Standard deviation with n - 1 in the denominator; nan for fewer than two values, or if
        one of them is not finite.
        """
        if self.n < 2 or not all(map(math.isfinite, self.values)):
            return math.nan
        return math.sqrt(sum((value - self.mean) ** 2 for value in self.values) / (self.n - 1))

    @property
    def is_constant(self) -> bool:
        return self.n > 0 and max(self.values) - min(self.values) < TOLERANCE

    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean, from Student's t; None for fewer than two values."""
        if self.n < 2:
            return None
        if self.is_constant:
            return self.mean, self.mean
        half = float(stats.t.ppf(0.975, self.n - 1)) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    def p_value(self) -> float | None:
        """Two-sided p-value of the t test that the mean is 0; None where it is not defined: for
        fewer than two values, or if all are equal.
        """
        if self.n < 2 or self.is_constant:
            return None
        t = self.mean / (self.std / math.sqrt(self.n))
        return float(2 * stats.t.sf(abs(t), self.n - 1))

    def equivalence_p_value(self, margin: float) -> float | None:
        """p-value of the test that the mean is not within ``margin`` of 0: small values show that
        it is. Two one-sided t tests (TOST, Schuirmann 1987), of which the larger p counts.

        None for fewer than two values. If all values are equal, 0 inside the margin and 1 outside.
        """
        if self.n < 2:
            return None
        if self.is_constant:
            return 0.0 if abs(self.mean) < margin else 1.0
        error = self.std / math.sqrt(self.n)
        p_values = stats.t.sf(
            [(self.mean + margin) / error, (margin - self.mean) / error], self.n - 1
        )
        return float(max(p_values))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction. None, a test that is not defined, stays None."""
    ordered = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(ordered):
        highest = max(highest, min(1.0, p * (len(ordered) - rank)))
        adjusted[i] = highest
    return adjusted


def holm_within(
    families: Sequence[Hashable], p_values: Sequence[float | None]
) -> list[float | None]:
    """Holm's correction within each family of tests.

    Args:
        families: the family of each test.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    for family in set(families):
        places = [i for i, other in enumerate(families) if other == family]
        for i, p in zip(places, holm([p_values[i] for i in places]), strict=True):
            adjusted[i] = p
    return adjusted


def wilcoxon(differences: Sequence[float]) -> float | None:
    """Two-sided p-value of the Wilcoxon signed-rank test; None if all differences are 0.

    Differences of 0 are left out. Without ties the test is exact up to 50 differences. With ties it
    is exact up to 13 (all sign patterns of the tied ranks are enumerated). Above these numbers the
    normal approximation is used.
    """
    # rounded, or float32 rounding errors would break ties
    nonzero = [round(value, 6) for value in differences if abs(value) >= TOLERANCE]
    if not nonzero:
        return None
    ties = len({abs(value) for value in nonzero}) < len(nonzero)
    if not ties and len(nonzero) <= 50:
        method: object = "exact"
    else:
        method = stats.PermutationMethod(n_resamples=2**13) if len(nonzero) <= 13 else "asymptotic"
    return float(stats.wilcoxon(nonzero, method=method).pvalue)
