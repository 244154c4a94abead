import math

import numpy as np
import pytest
from helpers import PAGES
from scipy import integrate, optimize, stats

from kd_lightning.reports.statistics import (
    Sample,
    detectable_mean,
    holm,
    holm_within,
    two_way_interval,
    wilcoxon,
)


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


def power_of_equivalence(margin: float, n: int, std: float, level: float) -> float:
    """How often the larger p of two one-sided t tests is below ``level`` if the mean is 0."""
    critical = stats.t.ppf(1 - level, n - 1)

    def shown(chi2: float) -> float:
        room = margin - critical * std * math.sqrt(chi2 / (n - 1) / n)  # for the mean
        share = 2 * stats.norm.cdf(room * math.sqrt(n) / std) - 1
        return max(0.0, share) * stats.chi2.pdf(chi2, n - 1)

    return integrate.quad(shown, 0, 60, limit=200)[0]


def test_what_the_declared_studies_can_see_is_what_their_page_says():
    page = PAGES["docs/studies.md"]
    of_set = {"ACSF1": 100 / 100, "ItalyPowerDemand": 1029 / 67}  # test / train
    seen = {name: detectable_mean(10, 1.5 * math.sqrt(1 + 10 * ratio), level=0.05 / 3)
            for name, ratio in of_set.items()}  # fmt: skip
    assert f"{seen['ACSF1']:.1f} points (ACSF1) to {seen['ItalyPowerDemand']:.1f} (Italy" in page
    over_sets, of_four = detectable_mean(8, 0.5, level=0.05 / 3), 0.05 / 4
    assert f"over the eight sets {over_sets:.1f} points if the means of the sets vary by 0" in page
    all_of_seven_agree = stats.norm.cdf(0.7 / 0.5) ** 7  # the only way to a p below 0.05 / 3
    assert f"sees this with {all_of_seven_agree:.0%}".replace("%", " %") in page
    finetuned = detectable_mean(20, 0.5, level=of_four)
    assert f"| {finetuned:.1f} points if a difference varies by 0.5 |" in page
    dual = [detectable_mean(10, std, level=of_four) for std in (0.6, 0.3)]
    assert f"{dual[0]:.1f} points if a difference varies by 0.6 points from seed to seed" in page
    assert f"and {dual[1]:.1f} if it varies by 0.3" in page
    std = optimize.brentq(lambda std: power_of_equivalence(0.5, 10, std, of_four) - 0.8, 0.1, 1)
    assert f"within 0.5 is shown with 80 % if a difference varies by {std:.2f} (at Holm's" in page
    found = np.zeros(100_000, dtype=bool)
    for n in (4, 6, 10):
        values = np.random.default_rng(0).normal(size=(len(found), 10))[:, :n]
        found |= stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05
    said = f"four, six and ten seeds would find something in {found.mean():.0%}"
    assert said.replace("%", " %") in " ".join(page.split())
    few, many = (math.sqrt(1 / n + 1) for n in (10, 30))
    narrower = 1 - many * stats.t.ppf(0.975, 29) / (few * stats.t.ppf(0.975, 9))
    wording = f"would make its standard error {1 - many / few:.0%} and its interval {narrower:.0%}"
    assert wording.replace("%", " %") in " ".join(page.split())


def test_values_of_resamples_have_the_variance_of_nadeau_and_bengio():
    values, overlap = (0.01, 0.03, 0.02, 0.06), 150 / 50
    sample = Sample(values, overlap)
    error = math.sqrt((1 / 4 + overlap) * np.var(values, ddof=1))
    t = sample.mean / error
    assert sample.p_value() == pytest.approx(2 * stats.t.sf(t, 3))
    half = stats.t.ppf(0.975, 3) * error
    assert sample.interval() == pytest.approx((sample.mean - half, sample.mean + half))
    assert sample.equivalence_p_value(0.1) == pytest.approx(stats.t.sf((0.1 - 0.03) / error, 3))
    ratio = sample.detectable() / Sample(values).detectable()
    assert ratio == pytest.approx(math.sqrt(1 + 4 * overlap))


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
    assert sample.equivalence_p_value(0.5) is None  # two equal values would show everything


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_has_neither_interval_nor_test(value):
    sample = Sample((0.1, value, 0.2))
    assert sample.interval() is None
    assert sample.p_value() is None
    assert sample.equivalence_p_value(0.5) is None
    assert sample.detectable() is None
    assert wilcoxon(sample.values) is None


def test_an_infinite_value_has_no_deviation():
    sample = Sample((math.inf, 0.5))
    assert sample.mean == math.inf
    assert math.isnan(sample.std)


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5 times 5, 4, 3, 2, then the running maximum: the test that is not
    # defined is one of five
    assert holm([0.03, 0.01, None, 0.5, 0.02]) == pytest.approx([0.09, 0.05, None, 1, 0.08])
    assert holm([0.04, 0.03, None]) == pytest.approx([0.09, 0.09, None])
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


def test_the_detectable_mean_is_that_of_statsmodels():
    power = pytest.importorskip("statsmodels.stats.power")
    for n, level in ((3, 0.05), (5, 0.05), (10, 0.01), (30, 0.05 / 28)):
        expected = power.TTestPower().solve_power(nobs=n, power=0.8, alpha=level)
        assert detectable_mean(n, 1.5, level=level) == pytest.approx(1.5 * expected, rel=1e-4)


def test_a_t_test_finds_the_detectable_mean_in_80_of_100_studies():
    mean = detectable_mean(5, 2.0)
    studies = np.random.default_rng(0).normal(mean, 2.0, (4000, 5))
    found = (stats.ttest_1samp(studies, 0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.02)  # three standard errors


def test_a_sample_without_variation_has_no_detectable_mean():
    assert Sample((0.5,)).detectable() is None
    assert Sample((0.5, 0.5)).detectable() is None
    assert Sample((0.4, 0.6)).detectable() == detectable_mean(2, Sample((0.4, 0.6)).std)


def test_without_variation_of_samples_the_two_way_interval_is_that_over_seeds():
    of_seeds = np.array([0.1, -0.2, 0.4])
    interval = two_way_interval(np.repeat(of_seeds[:, None], 7, axis=1))
    assert interval == pytest.approx(Sample(tuple(of_seeds)).interval())


def test_without_variation_of_seeds_the_two_way_interval_is_that_over_samples():
    of_samples = np.array([1, 0, 0, -1, 1, 0])
    interval = two_way_interval(np.repeat(of_samples[None], 4, axis=0))
    assert interval == pytest.approx(Sample(tuple(of_samples)).interval())


def test_the_two_way_interval_by_hand():
    # rows -1, 0, 1 and columns -4, 0, 4 around 2, and a rest of ±1 in four corners: parts 2/2/3 of
    # rows, 32/2/3 of columns, 4/4/9 of the rest; together 1/3 + 16/3 - 1/9 = 50/9
    low, high = two_way_interval(np.array([[-2.0, 0, 5], [-3, 3, 6], [-1, 3, 7]]))
    freedom = (50 / 9) ** 2 / ((1 / 3) ** 2 / 2 + (16 / 3) ** 2 / 2 + (1 / 9) ** 2 / 4)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(50 / 9)
    assert (low, high) == pytest.approx((2 - half, 2 + half))


def test_the_two_way_interval_is_never_narrower_than_that_over_the_rows():
    # parts 1 of rows, 4/3 of columns, 1/3 of the rest: about two degrees of freedom instead of one
    values = np.array([[-2.0, 1, 4], [2, 3, 4]])
    assert two_way_interval(values) == pytest.approx(Sample((1.0, 3.0)).interval())
    random = np.random.default_rng(0)
    for rows in (2, 3, 5):
        values = random.normal(size=(rows, 1)) + random.normal(size=(1, 50))
        values = values + random.normal(size=(rows, 50))
        wide, narrow = two_way_interval(values), Sample(tuple(values.mean(axis=1))).interval()
        assert np.diff(wide) >= np.diff(narrow) - 1e-9


def test_equal_values_have_a_two_way_interval_without_width():
    assert two_way_interval(np.full((3, 4), 0.5)) == (0.5, 0.5)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_one_seed_or_one_sample_has_no_two_way_interval(shape):
    assert two_way_interval(np.zeros(shape)) is None


def test_the_two_way_interval_covers_the_mean_where_that_over_seeds_does_not():
    random = np.random.default_rng(0)
    covered = np.zeros(2)
    for _ in range(1000):
        values = 0.03 * random.normal(size=(5, 1)) + 0.5 * random.normal(size=(1, 300))
        values = values + random.normal(size=(5, 300))
        intervals = two_way_interval(values), Sample(tuple(values.mean(axis=1))).interval()
        covered += [low < 0 < high for low, high in intervals]
    both, over_seeds = covered / 1000
    assert both == pytest.approx(0.95, abs=0.02)
    assert over_seeds < 0.9
