import math

import pytest
from scipy import stats

from kd_lightning.base.proportions import Z, mcnemar_p, paired_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (5, 10, 0.236593, 0.763407)],
)
def test_wilsons_interval_is_that_of_scipy(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-5)
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(("right", "ends"), [(0, (0, 0.2775)), (10, (0.7225, 1))])
def test_wilsons_interval_has_a_width_where_all_are_equal(right: int, ends: tuple) -> None:
    assert wilson_interval(right, 10) == pytest.approx(ends, abs=1e-4)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1),
        (3, 3, 1),
        (5, 0, 2 / 2**5),
        (1, 8, 2 * (1 + 9) / 2**9),
        (8, 1, 2 * (1 + 9) / 2**9),
    ],
)
def test_mcnemars_p_counts_the_outcomes_of_fair_coins(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_p(only_a, only_b) == pytest.approx(p)


def test_the_paired_interval_is_its_formula_and_turns_with_the_pair() -> None:
    a, b, n = 11 / 102, 5 / 102, 102
    half = Z * math.sqrt((a + b - (a - b) ** 2) / n)
    low, high = paired_interval(10, 4, 100)
    assert (low, high) == pytest.approx((a - b - half, a - b + half))
    assert paired_interval(4, 10, 100) == pytest.approx((-high, -low))


def test_the_paired_interval_has_a_width_and_stays_in_its_range() -> None:
    low, high = paired_interval(0, 0, 50)
    assert low == -high < 0
    low, high = paired_interval(2, 0, 2)
    assert -1 <= low < high == 1
