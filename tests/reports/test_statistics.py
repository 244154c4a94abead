import math

import numpy as np
import pytest
from scipy import stats

from kd_lightning.reports.statistics import Sample, holm, holm_within, wilcoxon


def test_mean_and_deviation_by_hand():
    sample = Sample((0.90, 0.92, 0.97))
    assert sample.mean == pytest.approx(0.93)
    assert sample.std == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert math.isnan(Sample((0.9,)).std)
    assert Sample((0.9,)).interval() is None
    assert Sample((0.9,)).p_value() is None


def test_the_interval_by_hand():
    # 1, 2, 3: std 1, t(0.975, 2) = 4.302653, so 2 ± 4.302653 / sqrt(3)
    low, high = Sample((1.0, 2.0, 3.0)).interval()
    assert (low, high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-5)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_interval_and_p_are_those_of_scipys_paired_t_test(n):
    a, b = np.random.default_rng(n).normal([[0.9], [0.89]], 0.01, (2, n))
    sample = Sample(tuple(a - b))
    expected = stats.ttest_rel(a, b)
    assert sample.p_value() == pytest.approx(expected.pvalue)
    assert sample.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))


@pytest.mark.parametrize("difference", [0.0, 0.25])
def test_equal_differences_have_an_interval_without_width_and_no_p(difference):
    # equal up to the precision of float32
    sample = Sample((difference, difference + 3e-8, difference))
    assert sample.interval() == pytest.approx((difference, difference), abs=1e-7)
    assert sample.p_value() is None


def test_an_infinite_value_has_no_deviation():
    sample = Sample((math.inf, 0.5))
    assert sample.mean == math.inf
    assert math.isnan(sample.std)


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1, then the running maximum
    assert holm([0.03, 0.01, None, 0.5, 0.02]) == pytest.approx([0.06, 0.04, None, 0.5, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_agrees_with_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = list(np.random.default_rng(0).uniform(0, 0.2, 12))
    assert holm(p_values) == pytest.approx(
        list(multitest.multipletests(p_values, method="holm")[1])
    )


def test_holm_adjusts_within_a_family():
    assert holm_within(["a", "b", "a"], [0.01, 0.01, 0.03]) == pytest.approx([0.02, 0.01, 0.03])


def test_wilcoxon_is_exact():
    # all six of one sign: 2 of the 2^6 sign patterns are as extreme
    assert wilcoxon([0.01, 0.02, 0.03, 0.04, 0.05, 0.06]) == pytest.approx(2 / 64)
    assert wilcoxon([-0.01, 0.02, 0.03, 0.04, 0.05, 0.06]) == pytest.approx(4 / 64)


def test_wilcoxon_with_ties_counts_the_patterns_of_tied_ranks():
    # ranks 2, 2, 2, 4 all positive; a difference of 1e-8 is a tie
    assert wilcoxon([0.01, 0.01 + 1e-8, 0.01, 0.05]) == pytest.approx(2 / 16)
    # ranks 1.5, 1.5, 3, 4, one 1.5 negative: three of 16 patterns on each side are as extreme
    assert wilcoxon([-0.01, 0.01 + 1e-8, 0.05, 0.06]) == pytest.approx(6 / 16)


def test_wilcoxon_leaves_equal_pairs_out():
    assert wilcoxon([0.0, 0.01, 0.02, 0.03]) == wilcoxon([0.01, 0.02, 0.03]) == 0.25
    assert wilcoxon([0.0, 1e-9]) is None


def test_wilcoxon_of_many_with_ties_is_approximate():
    differences = [0.01 * (1 + i % 5) for i in range(20)]
    assert 0 < wilcoxon(differences) < 0.001
