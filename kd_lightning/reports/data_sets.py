"""Over several data sets: a mean and a mean rank for each row, and whether the ranks differ.

After Demšar, Statistical comparisons of classifiers over multiple data sets (JMLR 2006): Friedman's
test over all rows with Nemenyi's as post-hoc, Wilcoxon's signed ranks for two.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from kd_lightning.base.tables import Table
from kd_lightning.reports.columns import show, split
from kd_lightning.reports.differences import Difference, interval_of, p_in_words, signed
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.pairs import Pair
from kd_lightning.reports.published import Published, numbers_of
from kd_lightning.reports.statistics import EQUAL, Sample, holm_within, wilcoxon

ALPHA = 0.05
MOST = 12  # data sets that stand in columns; more are in tables of their own alone


@dataclass(frozen=True)
class Across:
    """One metric of all rows on all data sets.

    Attributes:
        column: the metric.
        samples: row -> data set -> values over the seeds.
        data_sets: all, in the order of the plan.
        planned: row -> data set -> how many values there would be, were all jobs done.
        seeds: row -> data set -> the seeds of its values, in their order.
        reported: row -> what papers report of its mean over all data sets.
    """

    column: str
    samples: Mapping[str, Mapping[str, Sample]]
    data_sets: tuple[str, ...]
    planned: Mapping[str, Mapping[str, int]]
    seeds: Mapping[str, Mapping[str, tuple[str, ...]]]
    reported: Mapping[str, float]

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

    def over_all(self, label: str) -> Sample:
        """A row's mean over the complete data sets, each of which counts once: a value for each
        seed that all of them have, or one of their means where they have none in common.
        """
        if not self.complete:
            return Sample(())
        of_row = [
            dict(zip(self.seeds[label][name], self.samples[label][name].values, strict=True))
            for name in self.complete
        ]
        seeds = [seed for seed in of_row[0] if all(seed in values for values in of_row)]
        if not seeds:
            return Sample((sum(self.means[label]) / len(of_row),))
        return Sample(tuple(sum(v[seed] for v in of_row) / len(of_row) for seed in seeds))

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
    columns: Sequence[str],
    records: Sequence[JobResult],
    data_sets: Sequence[str],
    reported: Sequence[Published] = (),
) -> list[Across]:
    """One for each column; rows that have the metric nowhere are left out.

    Args:
        reported: means over these data sets.
    """
    names = tuple(dict.fromkeys(record.data_set(data_sets) for record in records))
    rows: dict[str, list[JobResult]] = {}
    for record in records:
        rows.setdefault(record.variant, []).append(record)
    means = {label: numbers_of(reported, row[0]) for label, row in rows.items()}
    found = []
    for column in columns:
        samples: dict[str, dict[str, Sample]] = {}
        seeds: dict[str, dict[str, tuple[str, ...]]] = {}
        planned: dict[str, Counter[str]] = {}
        for label, row in rows.items():
            planned[label] = Counter(record.data_set(data_sets) for record in row)
            for name in planned[label]:
                of_it = [r for r in row if r.data_set(data_sets) == name and column in r.values]
                if of_it:
                    values = Sample(tuple(record.values[column] for record in of_it))
                    samples.setdefault(label, {})[name] = values
                    seeds.setdefault(label, {})[name] = tuple(str(r.seed) for r in of_it)
        of_column = {label: row[column] for label, row in means.items() if column in row}
        found.append(Across(column, samples, names, planned, seeds, of_column))
    return found


def across_table(one: Across, diagram: str | None, notes: Sequence[str] = ()) -> Table:
    """The table of one metric.

    Args:
        diagram: the sentence on its critical-difference diagram, if it is tested.
        notes: further sentences.
    """
    ranks = one.mean_ranks()
    shown = one.data_sets if len(one.data_sets) <= MOST else ()
    rows = []
    for label, row in one.samples.items():
        cells = [_cell(one.column, row.get(name), one.planned[label][name]) for name in shown]
        cells.append(_spread(one.column, one.over_all(label)))
        if one.reported:
            number = one.reported.get(label)
            cells.append("" if number is None else show(one.column, number))
        rows.append([label, *cells, f"{ranks[label]:.2f}" if ranks else ""])
    net = split(one.column)[1]
    said = [
        f"{one.column} in %, mean ± standard deviation over seeds; mean: over the data sets, each "
        "of which counts once; mean rank: 1 is best."
    ]
    if not shown:
        said.append(
            f"Each of the {len(one.data_sets)} data sets has a table of its own in table.md."
        )
    if len(one.complete) < len(one.data_sets):
        left = [name for name in one.data_sets if name not in one.complete]
        said.append(f"Means and ranks leave out data sets that lack a row: {', '.join(left)}.")
    if _lacks_jobs(one):
        said.append(
            "Where jobs are missing (n = … of …) means, ranks and tests are of what there is."
        )
    if one.can_be_tested:
        p = one.friedman()
        verdict = "all rows are equal" if p is None else f"p {_is(p)}"
        said.append(
            f"Friedman test of {len(one.samples)} rows on {len(one.complete)} data sets: "
            f"{verdict}. Post-hoc: Nemenyi, mean ranks differ at {ALPHA:.0%} if by more than "
            f"{one.critical_difference():.2f}."
        )
        said += [diagram] * (diagram is not None)
    of_papers = ["reported mean"] * bool(one.reported)
    heads = ["variant", *shown, "mean", *of_papers, "mean rank"]
    return Table("data_sets", f"Over data sets: {net}", heads, rows, [*said, *notes])


def _is(p: float) -> str:
    return p_in_words(p) if p < 0.001 else f"= {p_in_words(p)}"


def _cell(column: str, sample: Sample | None, planned: int) -> str:
    if sample is None or not sample.n:
        return ""
    shown = _spread(column, sample)
    return shown if sample.n == planned else f"{shown} (n = {sample.n} of {planned})"


def _spread(column: str, sample: Sample) -> str:
    if not sample.n:
        return ""
    mean = show(column, sample.mean)
    return f"{mean} ± {show(column, sample.std)}" if sample.n > 1 else mean


def _lacks_jobs(one: Across) -> bool:
    """Whether a data set has fewer values of a row than it was to have, and not none."""
    return any(
        0 < row[name].n < one.planned[label][name]
        for label, row in one.samples.items()
        for name in row
    )


def wilcoxon_table(found: Sequence[Difference]) -> Table:
    """Each pair and metric over the data sets, each of which counts once, by its mean."""
    means: dict[tuple[Pair, str], list[float]] = {}
    for one in found:
        if one.sample.n:
            means.setdefault((one.pair, one.net), []).append(one.sample.mean)
    p_values = [wilcoxon(values) for values in means.values()]
    adjusted = holm_within([net for _, net in means], p_values)
    rows = []
    for place, p, p_holm in zip(means, p_values, adjusted, strict=True):
        (pair, net), values = place, means[place]
        sample = Sample(tuple(values))
        row = [pair.title, net, str(sample.n), signed(sample.mean)]
        rows.append([*row, interval_of(sample), p_in_words(p), p_in_words(p_holm)])
    notes = [
        "95 % interval: of the mean difference over data sets such as these, by Student's t over "
        "the n that are here.",
        "Wilcoxon signed-rank test, two-sided, exact (with ties: up to 13 data sets); each of the "
        "n data sets counts by its mean over the seeds that both rows have, equal ones not at all. "
        "p, Holm: adjusted for the tests of the same net.",
    ]
    fewest = min(map(len, means.values()), default=0)
    if 0 < fewest < 6:
        notes.append(f"{fewest} data sets can give no p below {2 / 2**fewest:.3g}.")
    heads = ["A − B", "net", "n", "test accuracy, points", "95 % interval", "p", "p, Holm"]
    return Table("data_sets", "Pairs over data sets", heads, rows, notes)
