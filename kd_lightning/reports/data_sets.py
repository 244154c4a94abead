"""Compares rows over several data sets: mean and mean rank of each row, and tests of the ranks.

The tests follow Demšar, Statistical comparisons of classifiers over multiple data sets (JMLR 2006):
the Friedman test over all rows with the Nemenyi post-hoc test.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from kd_lightning.base.tables import Table
from kd_lightning.reports.columns import format_value, split
from kd_lightning.reports.formats import format_p
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.published import Published, published_values
from kd_lightning.reports.statistics import TOLERANCE, Sample

ALPHA = 0.05
# With more data sets than this, the table has no column for each data set.
MAX_COLUMNS = 12


@dataclass(frozen=True)
class Comparison:
    """One metric of all rows on all data sets.

    Attributes:
        column: the metric.
        samples: row -> data set -> values over the seeds.
        data_sets: all data sets, in the order of the sweep.
        planned: row -> data set -> number of values if all jobs were done.
        seeds: row -> data set -> the seeds of its values, in the same order.
        published: row -> published mean over all data sets.
    """

    column: str
    samples: Mapping[str, Mapping[str, Sample]]
    data_sets: tuple[str, ...]
    planned: Mapping[str, Mapping[str, int]]
    seeds: Mapping[str, Mapping[str, tuple[str, ...]]]
    published: Mapping[str, float]

    @property
    def complete(self) -> tuple[str, ...]:
        """The data sets on which every row has a value. Ranks use only these."""
        return tuple(
            data_set
            for data_set in self.data_sets
            if all(data_set in row and row[data_set].n for row in self.samples.values())
        )

    @property
    def saturated(self) -> tuple[str, ...]:
        """The complete data sets on which all rows have the same mean."""
        if len(self.samples) < 2:
            return ()
        columns = zip(self.complete, zip(*self.means.values(), strict=True), strict=True)
        return tuple(name for name, means in columns if max(means) - min(means) < TOLERANCE)

    @property
    def means(self) -> dict[str, list[float]]:
        """Row -> its mean over the seeds on each complete data set."""
        return {
            label: [row[data_set].mean for data_set in self.complete]
            for label, row in self.samples.items()
        }

    def overall(self, label: str) -> Sample:
        """A row's mean over the complete data sets, each with equal weight.

        The sample has one value for each seed. If some data sets lack a seed that others have, it
        has a single value: the mean of the data sets' means, over the seeds that each has.
        """
        if not self.complete:
            return Sample(())
        by_data_set = [
            dict(zip(self.seeds[label][name], self.samples[label][name].values, strict=True))
            for name in self.complete
        ]
        if any(values.keys() != by_data_set[0].keys() for values in by_data_set):
            return Sample((sum(self.means[label]) / len(by_data_set),))
        return Sample(
            tuple(sum(v[seed] for v in by_data_set) / len(by_data_set) for seed in by_data_set[0])
        )

    @property
    def rounded(self) -> dict[str, list[int]]:
        """``means`` as whole numbers, so that float32 rounding errors do not decide between equal
        accuracies.
        """
        return {label: [round(x / TOLERANCE) for x in row] for label, row in self.means.items()}

    def mean_ranks(self) -> dict[str, float]:
        """Row -> its mean rank (1 is best; equal rows share it); {} if no data set is complete."""
        if not self.complete:
            return {}
        by_data_set = zip(*self.rounded.values(), strict=True)
        ranks = [stats.rankdata([-mean for mean in means]) for means in by_data_set]
        return {
            label: float(sum(rank[i] for rank in ranks) / len(ranks))
            for i, label in enumerate(self.samples)
        }

    @property
    def can_be_tested(self) -> bool:
        """The Friedman test needs at least three rows and three data sets."""
        return len(self.samples) >= 3 and len(self.complete) >= 3

    def friedman(self) -> float | None:
        """p-value of the Friedman test; None if all rows are equal on every data set."""
        rounded = list(self.rounded.values())
        if all(row == rounded[0] for row in rounded):
            return None
        return float(stats.friedmanchisquare(*rounded).pvalue)

    def critical_difference(self) -> float:
        """Nemenyi's critical difference: mean ranks further apart differ at level ``ALPHA``."""
        k, n = len(self.samples), len(self.complete)
        q = float(stats.studentized_range.ppf(1 - ALPHA, k, math.inf)) / math.sqrt(2)
        return q * math.sqrt(k * (k + 1) / (6 * n))


def compare_rows(
    columns: Sequence[str],
    results: Sequence[JobResult],
    data_sets: Sequence[str],
    published: Sequence[Published] = (),
) -> list[Comparison]:
    """One comparison for each column, without the rows that have no value of it.

    Args:
        data_sets: the keys that name a data set.
        published: means over these data sets.
    """
    names = tuple(dict.fromkeys(result.data_set(data_sets) for result in results))
    rows: dict[str, list[JobResult]] = {}
    for result in results:
        rows.setdefault(result.variant, []).append(result)
    published_means = {label: published_values(published, row[0]) for label, row in rows.items()}
    comparisons = []
    for column in columns:
        samples: dict[str, dict[str, Sample]] = {}
        seeds: dict[str, dict[str, tuple[str, ...]]] = {}
        planned: dict[str, Counter[str]] = {}
        for label, row in rows.items():
            planned[label] = Counter(result.data_set(data_sets) for result in row)
            for name in planned[label]:
                done = [r for r in row if r.data_set(data_sets) == name and column in r.values]
                if done:
                    values = Sample(tuple(result.values[column] for result in done))
                    samples.setdefault(label, {})[name] = values
                    seeds.setdefault(label, {})[name] = tuple(str(r.seed) for r in done)
        in_column = {label: m[column] for label, m in published_means.items() if column in m}
        comparisons.append(Comparison(column, samples, names, planned, seeds, in_column))
    return comparisons


def comparison_table(
    comparison: Comparison, diagram: str | None, notes: Sequence[str] = ()
) -> Table:
    """The table of one metric over all data sets.

    Args:
        diagram: the sentence about the critical-difference diagram, if the rows are tested.
        notes: further sentences under the table.
    """
    column, data_sets = comparison.column, comparison.data_sets
    ranks = comparison.mean_ranks()
    shown = data_sets if len(data_sets) <= MAX_COLUMNS else ()
    rows = []
    for label, row in comparison.samples.items():
        planned = comparison.planned[label]
        cells = [_format_cell(column, row.get(name), planned[name]) for name in shown]
        cells.append(_format_sample(column, comparison.overall(label)))
        if comparison.published:
            number = comparison.published.get(label)
            cells.append("" if number is None else format_value(column, number))
        rows.append([label, *cells, f"{ranks[label]:.2f}" if ranks else ""])
    own_notes = [
        f"{column} in %, mean ± standard deviation over seeds. Column mean: over the data sets, "
        "each with equal weight. Column mean rank: 1 is best."
    ]
    if not shown:
        own_notes.append(f"Each of the {len(data_sets)} data sets has its own table in table.md.")
    if len(comparison.complete) < len(data_sets):
        incomplete = [name for name in data_sets if name not in comparison.complete]
        own_notes.append(
            "Means and ranks leave out the data sets on which a row has no result: "
            f"{', '.join(incomplete)}."
        )
    if _lacks_jobs(comparison):
        own_notes.append(
            "Where jobs are missing (n = … of …), means and ranks use the jobs that are done, so "
            "rows may differ by their seeds; the pairs compare equal seeds alone."
        )
    if comparison.saturated:
        own_notes.append(
            "All rows have the same mean, so no difference can be seen, on: "
            f"{', '.join(comparison.saturated)}."
        )
    if comparison.can_be_tested:
        p = comparison.friedman()
        result = "all rows are equal" if p is None else f"p {_with_relation(p)}"
        own_notes.append(
            f"Friedman test of {len(comparison.samples)} rows on {len(comparison.complete)} data "
            f"sets: {result}. Nemenyi post-hoc test: two mean ranks differ significantly (level "
            f"{ALPHA:.0%}) if they are more than {comparison.critical_difference():.2f} apart."
        )
        own_notes += [diagram] * (diagram is not None)
    published_head = ["reported mean"] * bool(comparison.published)
    heads = ["variant", *shown, "mean", *published_head, "mean rank"]
    title = f"Over data sets: {split(column)[1]}"
    return Table("data_sets", title, heads, rows, [*own_notes, *notes])


def _with_relation(p: float) -> str:
    return format_p(p) if p < 0.001 else f"= {format_p(p)}"


def _format_cell(column: str, sample: Sample | None, planned: int) -> str:
    if sample is None or not sample.n:
        return ""
    text = _format_sample(column, sample)
    return text if sample.n == planned else f"{text} (n = {sample.n} of {planned})"


def _format_sample(column: str, sample: Sample) -> str:
    if not sample.n:
        return ""
    mean = format_value(column, sample.mean)
    return f"{mean} ± {format_value(column, sample.std)}" if sample.n > 1 else mean


def _lacks_jobs(comparison: Comparison) -> bool:
    """Whether some row has fewer values on a data set than planned, but not zero."""
    return any(
        0 < row[name].n < comparison.planned[label][name]
        for label, row in comparison.samples.items()
        for name in row
    )
