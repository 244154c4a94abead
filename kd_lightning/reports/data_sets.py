"""Over several data sets: a mean rank for each row, and whether the ranks differ.

After Demšar, Statistical comparisons of classifiers over multiple data sets (JMLR 2006): Friedman's
test over all rows with Nemenyi's as post-hoc, Wilcoxon's signed ranks for two.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from kd_lightning.reports.columns import show, split
from kd_lightning.reports.differences import Difference, p_in_words, signed
from kd_lightning.reports.pairs import Pair
from kd_lightning.reports.records import Record
from kd_lightning.reports.statistics import EQUAL, Sample, holm_within, wilcoxon
from kd_lightning.reports.texts import Table

ALPHA = 0.05


@dataclass(frozen=True)
class Across:
    """One metric of all rows on all data sets.

    Attributes:
        column: the metric.
        samples: row -> data set -> values over the seeds.
        data_sets: all, in the order of the plan.
        planned: row -> data set -> how many values there would be, were all jobs done.
    """

    column: str
    samples: Mapping[str, Mapping[str, Sample]]
    data_sets: tuple[str, ...]
    planned: Mapping[str, Mapping[str, int]]

    @property
    def complete(self) -> tuple[str, ...]:
        """The data sets on which every row has a value: ranks are over these."""
        return tuple(
            data_set
            for data_set in self.data_sets
            if all(data_set in row and row[data_set].n for row in self.samples.values())
        )

    @property
    def means(self) -> dict[str, list[float]]:
        """Row -> its mean over the seeds on each complete data set."""
        return {
            label: [row[data_set].mean for data_set in self.complete]
            for label, row in self.samples.items()
        }

    def mean_ranks(self) -> dict[str, float]:
        """Row -> its mean rank, 1 the best, equals sharing theirs; {} without a complete set."""
        if not self.complete:
            return {}
        means = self.means
        ranks = [
            # rounded: equal accuracies may differ by what float32 cannot hold
            stats.rankdata([-round(means[label][i] / EQUAL) for label in means])
            for i in range(len(self.complete))
        ]
        return {
            label: float(sum(rank[i] for rank in ranks) / len(ranks))
            for i, label in enumerate(means)
        }

    @property
    def can_be_tested(self) -> bool:
        """Friedman's test is for three rows or more, on three data sets or more."""
        return len(self.samples) >= 3 and len(self.complete) >= 3

    def friedman(self) -> float | None:
        """p-value; None where all rows are equal on every data set."""
        rounded = [[round(mean / EQUAL) for mean in row] for row in self.means.values()]
        if all(row == rounded[0] for row in rounded):
            return None
        return float(stats.friedmanchisquare(*rounded).pvalue)

    def critical_difference(self) -> float:
        """Nemenyi's: mean ranks that differ by more do so at ``ALPHA``."""
        k, n = len(self.samples), len(self.complete)
        q = float(stats.studentized_range.ppf(1 - ALPHA, k, math.inf)) / math.sqrt(2)
        return q * math.sqrt(k * (k + 1) / (6 * n))


def across(
    columns: Sequence[str], records: Sequence[Record], data_sets: Sequence[str]
) -> list[Across]:
    """One for each column; rows that have the metric nowhere are left out."""
    names = tuple(dict.fromkeys(record.data_set(data_sets) for record in records))
    found = []
    for column in columns:
        values: dict[str, dict[str, list[float]]] = {}
        planned: dict[str, Counter[str]] = {}
        for record in records:
            planned.setdefault(record.variant, Counter())[record.data_set(data_sets)] += 1
            if column in record.values:
                row = values.setdefault(record.variant, {})
                row.setdefault(record.data_set(data_sets), []).append(record.values[column])
        samples = {
            label: {name: Sample(tuple(row[name])) for name in row} for label, row in values.items()
        }
        found.append(Across(column, samples, names, planned))
    return found


def across_table(one: Across, diagram: str | None) -> Table:
    """The table of one metric.

    Args:
        diagram: the sentence on its critical-difference diagram, if it is tested.
    """
    ranks = one.mean_ranks()
    rows = []
    for label, row in one.samples.items():
        cells = [
            _cell(one.column, row.get(name), one.planned[label][name]) for name in one.data_sets
        ]
        rows.append([label, *cells, f"{ranks[label]:.2f}" if ranks else ""])
    net = split(one.column)[1]
    notes = [f"{one.column} in %, mean ± standard deviation over seeds; mean rank: 1 is best."]
    if len(one.complete) < len(one.data_sets):
        left = [name for name in one.data_sets if name not in one.complete]
        notes.append(f"Ranks leave out data sets that lack a row: {', '.join(left)}.")
    if any("(n = " in cell for row in rows for cell in row[1:]):
        notes.append("Where jobs are missing (n = … of …) ranks and tests are of what there is.")
    if one.can_be_tested:
        p = one.friedman()
        said = "all rows are equal" if p is None else f"p {_is(p)}"
        notes.append(
            f"Friedman test of {len(one.samples)} rows on {len(one.complete)} data sets: {said}. "
            f"Post-hoc: Nemenyi, mean ranks differ at {ALPHA:.0%} if by more than "
            f"{one.critical_difference():.2f}."
        )
        notes += [diagram] * (diagram is not None)
    heads = ["variant", *one.data_sets, "mean rank"]
    return Table("data_sets", f"Over data sets: {net}", heads, rows, notes)


def _is(p: float) -> str:
    return p_in_words(p) if p < 0.001 else f"= {p_in_words(p)}"


def _cell(column: str, sample: Sample | None, planned: int) -> str:
    if sample is None or not sample.n:
        return ""
    mean = show(column, sample.mean)
    shown = f"{mean} ± {show(column, sample.std)}" if sample.n > 1 else mean
    return shown if sample.n == planned else f"{shown} (n = {sample.n} of {planned})"


def wilcoxon_table(found: Sequence[Difference]) -> Table:
    """Each pair and metric over the data sets, each of which counts once, by its mean."""
    means: dict[tuple[Pair, str], list[float]] = {}
    for one in found:
        if one.sample.n:
            means.setdefault((one.pair, one.column), []).append(one.sample.mean)
    p_values = [wilcoxon(values) for values in means.values()]
    adjusted = holm_within([column for _, column in means], p_values)
    rows = []
    for place, p, p_holm in zip(means, p_values, adjusted, strict=True):
        (pair, column), values = place, means[place]
        row = [pair.title, split(column)[1], str(len(values)), signed(sum(values) / len(values))]
        rows.append([*row, p_in_words(p), p_in_words(p_holm)])
    notes = [
        "Wilcoxon signed-rank test, two-sided, exact (with ties: up to 13 data sets); each of the "
        "n data sets counts by its mean over the seeds that both rows have, equal ones not at all. "
        "p, Holm: adjusted for the tests of the same net."
    ]
    fewest = min(map(len, means.values()), default=0)
    if 0 < fewest < 6:
        notes.append(f"{fewest} data sets can give no p below {2 / 2**fewest:.3g}.")
    heads = ["A − B", "net", "n", "test accuracy, points", "p", "p, Holm"]
    return Table("data_sets", "Pairs over data sets", heads, rows, notes)
