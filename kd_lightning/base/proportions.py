"""Intervals and tests of shares, such as accuracies: of one net, and of two on the same samples.

They cover the choice of the test samples, and nothing else: not the seeds of training.
"""

import math

from scipy import stats

CONFIDENCE = 0.95
Z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))


def wilson_interval(right: float, total: int) -> tuple[float, float]:
    """Wilson's score interval of a share at 95 %. It stays in [0, 1] and has a width also if all or
    no samples are right (E. B. Wilson, JASA 22, 1927).

    Args:
        right: number of samples that are right; a mean over ties need not be a whole number.
        total: number of samples, at least 1.
    """
    share = right / total
    middle = (share + Z * Z / (2 * total)) / (1 + Z * Z / total)
    half = math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    half *= Z / (1 + Z * Z / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Two-sided p-value of the exact McNemar test that two nets have the same accuracy (Q.
    McNemar, Psychometrika 12, 1947). 1 if they are right on the same samples.

    Args:
        only_a, only_b: number of samples on which only this net is right.
    """
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b).pvalue)


def paired_interval(only_a: int, only_b: int, total: int) -> tuple[float, float]:
    """The 95 % interval of accuracy A - accuracy B on the same samples.

    The adjusted Wald interval of D. G. Bonett and R. M. Price, J. Educ. Behav. Stat. 37, 2012: one
    is added to the number of samples on which only A is right, and to that of only B, and two to
    the total.

    Args:
        only_a, only_b: number of samples on which only this net is right.
        total: number of samples.
    """
    a, b = ((count + 1) / (total + 2) for count in (only_a, only_b))
    half = Z * math.sqrt((a + b - (a - b) ** 2) / (total + 2))
    return max(-1.0, a - b - half), min(1.0, a - b + half)
