"""Computes paired differences: row A minus row B under the same seed, with intervals and tests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.records.sample_counts import sample_counts
from kd_lightning.reports.columns import (
    COMBINED,
    METRICS,
    PERCENT,
    measure_of,
    split,
    students_of,
)
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.pairs import Pair
from kd_lightning.reports.statistics import TOLERANCE, Sample, holm_within, two_way_interval


@dataclass(frozen=True)
class Difference:
    """One metric of one pair of rows on one data set.

    Attributes:
        pair: the two rows.
        data_set: its name; "" if there is only one data set.
        column: the metric of A.
        column_b: the metric of B: the same, or that of another net.
        sample: A − B for each seed for which both rows have a value.
        planned: number of seeds that at least one of the rows should have.
        results: the results that ``sample`` uses: first those of A, then those of B.
        interval_with_test: the 95 % interval over other seeds and other test samples; None if it is
            not known which samples the nets got right, and for other metrics than accuracy.
        exploratory: whether the study named another pair or another column as its question; None:
            it named none.
        declared: how many seeds the study named before it ran; 0: it named none.
    """

    pair: Pair
    data_set: str
    column: str
    column_b: str
    sample: Sample
    planned: int
    results: tuple[JobResult, ...]
    interval_with_test: tuple[float, float] | None = None
    exploratory: bool | None = None
    declared: int = 0

    @property
    def net(self) -> str:
        """The net that is compared, or both nets."""
        nets = (split(self.column)[1], split(self.column_b)[1])
        return " − ".join(dict.fromkeys(nets))

    @property
    def metric(self) -> str:
        """What is compared, such as ``accuracy``."""
        return split(self.column)[2]

    @property
    def family(self) -> tuple[str, str, str, bool | None]:
        """Tests with the same value are corrected together."""
        return self.net, split(self.column)[0], self.metric, self.exploratory

    @property
    def kind(self) -> str:
        """What the difference is for its study; "" if this did not say what its question is."""
        return {True: "exploratory", False: "primary", None: ""}[self.exploratory]


def check_compared(metrics: Sequence[str]) -> None:
    """Raises ``UserError`` unless all are metrics of the test."""
    valid = [*METRICS["test"], *(f"last/{metric}" for metric in METRICS["last"])]
    for metric in metrics:
        if metric not in valid:
            raise unknown("metric", metric, valid, "sweep.compared=[…], or --compared …")


def check_primary_column(column: str | None, compared: Sequence[str]) -> None:
    """Raises ``UserError`` unless pairs are compared in this column.

    Args:
        column: None: no column was named.
        compared: the metrics in which they are compared.
    """
    if column is None:
        return
    part, net, metric = split(column)
    if net in ("", "*") or (part, metric) not in map(measure_of, compared):
        raise UserError(
            f"the primary column is <part>/<net>/<metric> with a metric of {', '.join(compared)} "
            f"(sweep.compared), such as test/a/accuracy, got '{column}' (sweep.primary_column=…)"
        )


def tested_columns(metric: str, columns: Sequence[str], results: Iterable[JobResult]) -> list[str]:
    """The columns to test: those of ``columns`` that are this metric on test, of the students or of
    their combinations. If there are none among ``columns``, all such columns.

    Args:
        metric: its name in ``compared``.
    """
    values = [result.values for result in results]
    part, metric = measure_of(metric)
    candidates = [f"{part}/{net}/{metric}" for net in (*students_of(values), *COMBINED)]
    candidates = [column for column in candidates if any(column in row for row in values)]
    return [column for column in columns if column in candidates] or candidates


def differences(
    pairs: Sequence[Pair],
    metric: str,
    columns: Sequence[str],
    results: Sequence[JobResult],
    data_sets: Sequence[str],
    primary_column: str | None = None,
    declared: int = 0,
) -> list[Difference]:
    """The difference of each pair on each data set, in each column that both rows have. A pair that
    names two nets is compared only in the metric of these nets.

    Args:
        columns: of this metric.
        data_sets: the keys that name a data set.
        primary_column: differences in other columns are exploratory; None: no column makes one so.
        declared: see ``Difference``.
    """
    rows: dict[tuple[str, str], dict[str, JobResult]] = {}
    for result in results:
        place = (result.variant, result.data_set(data_sets))
        rows.setdefault(place, {})[str(result.seed)] = result
    paired = []
    for pair in pairs:
        for data_set in dict.fromkeys(place[1] for place in rows):
            a, b = rows.get((pair.a, data_set), {}), rows.get((pair.b, data_set), {})
            for column_a, column_b in pair.columns(metric, columns):
                if _lacks(a, column_a) or _lacks(b, column_b):
                    continue
                seeds = [
                    seed
                    for seed in a
                    if seed in b and column_a in a[seed].values and column_b in b[seed].values
                ]
                used = tuple(row[seed] for row in (a, b) for seed in seeds)
                sample = Sample(
                    tuple(a[seed].values[column_a] - b[seed].values[column_b] for seed in seeds),
                    overlap(used),
                )
                interval = interval_with_test(column_a, column_b, sample, used)
                planned = max(declared, len({*a, *b}))
                exploratory = pair.exploratory
                if primary_column is not None:
                    exploratory = bool(exploratory) or column_a != primary_column
                paired.append(
                    Difference(
                        pair, data_set, column_a, column_b, sample, planned, used, interval,
                        exploratory, declared,
                    )
                )  # fmt: skip
    return paired


def differ_in_resample(results: Sequence[JobResult]) -> bool:
    return len({result.seeds.get("data.resample") for result in results}) > 1


def overlap(results: Sequence[JobResult]) -> float:
    """Test samples per sample of train and val, if results are of different resamples of one data
    set; else 0. See ``Sample``.
    """
    if not differ_in_resample(results):
        return 0.0
    counts = sample_counts(results[0].metrics["protocol"])
    return counts.test / (counts.train + counts.val) if counts else 0.0


def interval_with_test(
    column_a: str, column_b: str, sample: Sample, results: Sequence[JobResult]
) -> tuple[float, float] | None:
    """The interval of a difference of accuracies over other seeds and other test samples.

    Args:
        sample: the differences, one for each seed.
        results: first those of A, then those of B, in the order of these seeds.

    Returns:
        None for other metrics, if a net's right answers are not known or give other accuracies, or
        if the test samples are not the same for all.
    """
    (part, net_a, metric), (_, net_b, _) = split(column_a), split(column_b)
    correct = [result.correct for result in results]
    nets = [net_a] * sample.n + [net_b] * sample.n
    if (part, metric) != ("test", "accuracy") or len({job.test for job in correct}) != 1:
        return None
    if differ_in_resample(results):  # their labels may be equal all the same
        return None
    if not all(net in job.nets for net, job in zip(nets, correct, strict=True)):
        return None
    right = np.stack([job.nets[net] for net, job in zip(nets, correct, strict=True)]).astype(int)
    values = right[: sample.n] - right[sample.n :]
    if not np.allclose(values.mean(axis=1), sample.values, rtol=0, atol=TOLERANCE):
        return None
    return two_way_interval(values)


def compare(
    pairs: Sequence[Pair],
    metrics: Sequence[str],
    columns: Sequence[str],
    results: Sequence[JobResult],
    data_sets: Sequence[str],
    primary_column: str | None = None,
    declared: int = 0,
) -> dict[str, list[Difference]]:
    """The differences of all pairs, by metric. A metric that no finished run has is left out.

    Args:
        columns: of the report; see ``tested_columns``.
        data_sets: the keys that name a data set.
        primary_column: see ``differences``.
        declared: see ``Difference``.
    """
    is_any_done = any(result.values for result in results)
    compared = {}
    for metric in metrics:
        tested = tested_columns(metric, columns, results)
        if tested or not is_any_done:
            compared[metric] = differences(
                pairs, metric, tested, results, data_sets, primary_column, declared
            )
    return compared


def _lacks(row: Mapping[str, JobResult], column: str) -> bool:
    """Whether some jobs of a row are done, and none of them has this column."""
    done = [result for result in row.values() if result.values]
    return bool(done) and not any(column in result.values for result in done)


def adjusted_p_values(paired: Sequence[Difference]) -> list[float | None]:
    """p-values with Holm's correction; the tests of one net and metric are one family."""
    families = [difference.family for difference in paired]
    return holm_within(families, [difference.sample.p_value() for difference in paired])


def check_margin(margin: float | None) -> None:
    """Raises ``UserError`` unless the margin of the equivalence test is in (0, 100]."""
    if margin is not None and not 0 < margin <= 100:
        raise UserError(
            "the margin of the equivalence test is in points of accuracy, in (0, 100], got "
            f"{margin:g} (margin)"
        )


def equivalence_p_values(paired: Sequence[Difference], margin: float | None) -> list[float | None]:
    """p-values of the equivalence test with Holm's correction; the tests of one net and metric are
    one family. None for metrics that are no shares: they have no points.

    Args:
        margin: in points; None: no test.
    """
    if margin is None:
        return [None] * len(paired)
    families = [difference.family for difference in paired]
    p_values = [
        difference.sample.equivalence_p_value(margin / 100)
        if difference.metric in PERCENT
        else None
        for difference in paired
    ]
    return holm_within(families, p_values)
