"""Mean, standard deviation, intervals and tests of results over several seeds."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Num
from scipy import optimize, stats

# Accuracies are stored in float32: values closer than this count as equal.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Sample:
    """The values of one quantity under several seeds.

    Attributes:
        values: one for each seed.
        overlap: 0: the values are independent. If the seeds differ in which samples of one data set
            are train and which are test: test samples per training sample. Such values vary
            together, so the variance of their mean is (1 / n + overlap) std^2 (Nadeau and Bengio
            2003, "Inference for the generalization error").
    """

    values: tuple[float, ...]
    overlap: float = 0.0

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

    @property
    def has_test(self) -> bool:
        """Whether a t test is defined: for two values or more, all finite and not all equal. Equal
        values do not show that other seeds give the same.
        """
        return math.isfinite(self.std) and not self.is_constant

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.effective_std / math.sqrt(self.n)

    @property
    def effective_std(self) -> float:
        """The standard deviation of independent values whose mean is as uncertain."""
        return self.std * math.sqrt(1 + self.n * self.overlap)

    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean, from Student's t; None for fewer than two values, or if
        one of them is not finite.
        """
        if not math.isfinite(self.std):
            return None
        if self.is_constant:
            return self.mean, self.mean
        half = float(stats.t.ppf(0.975, self.n - 1)) * self.effective_std / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    def p_value(self) -> float | None:
        """Two-sided p-value of the t test that the mean is 0; None where it is not defined."""
        if not self.has_test:
            return None
        return float(2 * stats.t.sf(abs(self.mean / self.error), self.n - 1))

    def equivalence_p_value(self, margin: float) -> float | None:
        """p-value of the test that the mean is not within ``margin`` of 0: small values show that
        it is. Two one-sided t tests (TOST, Schuirmann 1987), of which the larger p counts. None
        where they are not defined.
        """
        if not self.has_test:
            return None
        bounds = [self.mean + margin, margin - self.mean]
        p_values = stats.t.sf([bound / self.error for bound in bounds], self.n - 1)
        return float(max(p_values))

    def detectable(self, power: float = 0.8, level: float = 0.05) -> float | None:
        """The mean that the t test finds at ``level`` with a probability of ``power``, if other
        values vary as these do; None where the test is not defined.
        """
        if not self.has_test:
            return None
        return detectable_mean(self.n, self.effective_std, power, level)


def detectable_mean(n: int, std: float, power: float = 0.8, level: float = 0.05) -> float:
    """The mean that a two-sided t test of n values finds with a probability of ``power``.

    Exact, from the noncentral t distribution: the test sees it on its own side, above
    t(1 - level / 2, n - 1), with this probability.

    Args:
        n: number of values, at least 2.
        std: standard deviation of the values.
    """
    critical = float(stats.t.ppf(1 - level / 2, n - 1))

    def missing(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, n - 1, noncentrality)) - power

    # an upper end that is seen far more often than asked
    high = critical + 10 * (1 + critical / math.sqrt(2 * (n - 1)))
    return float(optimize.brentq(missing, 0, high)) * std / math.sqrt(n)


def two_way_interval(values: Num[np.ndarray, "rows columns"]) -> tuple[float, float] | None:
    """The 95 % interval of a mean over other rows and other columns than those that are there, such
    as other seeds and other test samples; None for fewer than two of one of them.

    Rows and columns are random effects that cross. The variance of the mean is
    (MS_rows + MS_columns - MS_rest) / (rows * columns), without the part of the columns if it is
    negative. The degrees of freedom are Satterthwaite's. This is the analysis of many readers and
    many cases in medical imaging (Dorfman, Berbaum and Metz 1992; Hillis 2007).

    It is never narrower than the interval over the rows alone: with few rows, the degrees of
    freedom grow more with a small part of the columns than the variance does.
    """
    rows, columns = values.shape
    if min(rows, columns) < 2:
        return None
    mean = float(values.mean())
    of_rows, of_columns = values.mean(axis=1) - mean, values.mean(axis=0) - mean
    rest = values - mean - of_rows[:, None] - of_columns[None]
    # each mean square over rows * columns: its part of the variance of the mean
    row_part = float((of_rows**2).sum()) / (rows - 1) / rows
    column_part = float((of_columns**2).sum()) / (columns - 1) / columns
    rest_freedom = (rows - 1) * (columns - 1)
    rest_part = float((rest**2).sum()) / rest_freedom / (rows * columns)
    parts = [(row_part, rows - 1)]
    if column_part > rest_part:
        parts += [(column_part, columns - 1), (-rest_part, rest_freedom)]
    variance = sum(part for part, _ in parts)
    if not variance:
        return mean, mean
    freedom = variance**2 / sum(part**2 / of_part for part, of_part in parts)
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    of_rows_alone = float(stats.t.ppf(0.975, rows - 1)) * math.sqrt(row_part)
    half = max(half, of_rows_alone)
    return mean - half, mean + half


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction. None, a test that is not defined, stays None, and counts as one
    of the tests all the same: how many there are does not depend on what was found.
    """
    ordered = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(ordered):
        highest = max(highest, min(1.0, p * (len(p_values) - rank)))
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
    """Two-sided p-value of the Wilcoxon signed-rank test; None if all differences are 0, or if one
    is not finite.

    Differences of 0 are left out. Without ties the test is exact up to 50 differences. With ties it
    is exact up to 13 (all sign patterns of the tied ranks are enumerated). Above these numbers the
    normal approximation is used.
    """
    if not all(map(math.isfinite, differences)):
        return None
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
