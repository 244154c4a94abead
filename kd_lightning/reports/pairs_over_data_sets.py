"""The table of pairs over several data sets: the Wilcoxon signed-rank test of two rows.

The test follows Demšar, Statistical comparisons of classifiers over multiple data sets (JMLR 2006).
"""

from collections.abc import Sequence

from kd_lightning.base.tables import Table
from kd_lightning.reports.columns import PERCENT, measure_of
from kd_lightning.reports.data_sets import ALPHA
from kd_lightning.reports.differences import Difference
from kd_lightning.reports.formats import (
    difference_heading,
    format_difference,
    format_interval,
    format_margin,
    format_p,
)
from kd_lightning.reports.pair_tables import title_of
from kd_lightning.reports.pairs import Pair
from kd_lightning.reports.statistics import TOLERANCE, Sample, holm, holm_within, wilcoxon


def wilcoxon_table(metric: str, paired: Sequence[Difference], margin: float | None = None) -> Table:
    """Tests each pair and net over the data sets: each data set counts once, with its mean.

    Args:
        metric: its name in ``compared``.
        paired: the differences in this metric.
        margin: of the equivalence test, in points; None: no test. Metrics that are no shares have
            no test.
    """
    means: dict[tuple[Pair, str, str], list[float]] = {}
    for difference in paired:
        if difference.sample.n:
            key = (difference.pair, difference.net, difference.kind)
            means.setdefault(key, []).append(difference.sample.mean)
    _, name = measure_of(metric)
    has_kinds = any(kind == "exploratory" for _, _, kind in means)
    families = [(net, kind) for _, net, kind in means]
    samples = [Sample(tuple(values)) for values in means.values()]
    p_values = [wilcoxon(sample.values) for sample in samples]
    adjusted = holm_within(families, p_values)
    is_tested = margin is not None and name in PERCENT
    equivalent = holm_within(
        families,
        [sample.equivalence_p_value(margin / 100) if is_tested else None for sample in samples],
    )
    rows = []
    for key, sample, *tests in zip(means, samples, p_values, adjusted, equivalent, strict=True):
        pair, net, kind = key
        row = [pair.title, *[kind] * has_kinds, net, str(sample.n)]
        row += [format_difference(name, sample.mean), format_interval(name, sample.interval())]
        rows.append([*row, *map(format_p, tests if is_tested else tests[:2])])
    notes = [
        "95 % interval: of the mean difference over data sets like these, from Student's t with "
        "the n data sets of this table.",
        "p: two-sided Wilcoxon signed-rank test over the n data sets. Each data set counts once, "
        "with its mean difference over the seeds that both rows have; data sets without a "
        "difference are left out of the test. The test is exact for up to 50 data sets, or up to "
        "13 if there are ties; above that p is approximate.",
        "p, Holm: with Holm's correction for the tests of the same net.",
    ]
    if is_tested:
        notes.append(
            f"p, within ±{margin:g}: below 0.05, the mean difference over data sets like these is "
            f"shown to be smaller than {format_margin(margin)} either way (two one-sided t tests "
            "over the n data sets, with Holm’s correction)."
        )
    if any(sample.n > 1 and sample.is_constant for sample in samples):
        notes.append(
            "If the difference is the same on all data sets, the interval has no width. This does "
            "not mean that other data sets give the same difference."
        )
    notes += notes_on_lowest_p(list(means.values()), families)
    heads = ["A − B", *["contrast"] * has_kinds, "net", "n", difference_heading(metric)]
    heads += ["95 % interval", "p", "p, Holm"]
    heads += [f"p, within ±{margin:g}"] if is_tested else []
    return Table("data_sets", title_of("Pairs over data sets", metric), heads, rows, notes)


def notes_on_lowest_p(
    means: Sequence[Sequence[float]], families: Sequence[tuple[str, str]]
) -> list[str]:
    """What tests over so few data sets, or so many of them, cannot show.

    Args:
        means: of each test, its differences, one for each data set.
        families: the family of each test: its net, and its kind of contrast.
    """
    # the test leaves out data sets without a difference
    counts = [sum(abs(mean) >= TOLERANCE for mean in of_test) for of_test in means]
    notes = [
        f"Where only {count} data {'set differs' if count == 1 else 'sets differ'}, p cannot be "
        f"below {lowest_p(count):.3g}."
        for count in sorted(set(counts))
        if count and lowest_p(count) > ALPHA
    ]
    for family in dict.fromkeys(families):
        net, kind = family
        of_family = [n for n, own in zip(counts, families, strict=True) if own == family]
        # all p as low as they can be
        lowest = holm([lowest_p(count) if count else None for count in of_family])
        best = {count: p for count, p in zip(of_family, lowest, strict=True) if p is not None}
        notes += [
            f"With Holm's correction for the {len(of_family)} {f'{kind} ' * bool(kind)}pairs of "
            f"{net}, p cannot be below {p:.3g} where only {count} data sets differ. Fewer primary "
            "contrasts (primary) would make it lower."
            for count, p in sorted(best.items())
            if kind != "exploratory" and lowest_p(count) <= ALPHA < p
        ]
    return notes


def lowest_p(count: int) -> float:
    """The lowest two-sided p that the signed-rank test of so many differences can have."""
    return 2 / 2**count
