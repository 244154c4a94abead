"""Computes paired differences: row A minus row B under the same seed, with intervals and tests."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kd_lightning.base.errors import UserError
from kd_lightning.base.tables import Table
from kd_lightning.reports.columns import COMBINED, split, students_of
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.pairs import Pair
from kd_lightning.reports.statistics import Sample, holm_within


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
    """

    pair: Pair
    data_set: str
    column: str
    column_b: str
    sample: Sample
    planned: int
    results: tuple[JobResult, ...]

    @property
    def net(self) -> str:
        """The net that is compared, or both nets."""
        nets = (split(self.column)[1], split(self.column_b)[1])
        return " − ".join(dict.fromkeys(nets))


def accuracy_columns(columns: Sequence[str], results: Iterable[JobResult]) -> list[str]:
    """The columns to test: those of ``columns`` that are test accuracies of the students or of
    their combinations. If there are none among ``columns``, all such columns.
    """
    values = [result.values for result in results]
    candidates = [f"test/{net}/accuracy" for net in (*students_of(values), *COMBINED)]
    candidates = [column for column in candidates if any(column in row for row in values)]
    return [column for column in columns if column in candidates] or candidates


def differences(
    pairs: Sequence[Pair],
    columns: Sequence[str],
    results: Sequence[JobResult],
    data_sets: Sequence[str],
) -> list[Difference]:
    """The difference of each pair on each data set, in each column that both rows have. A pair that
    names two nets is compared only in the accuracies of these nets.

    Args:
        data_sets: the keys that name a data set.
    """
    rows: dict[tuple[str, str], dict[str, JobResult]] = {}
    for result in results:
        place = (result.variant, result.data_set(data_sets))
        rows.setdefault(place, {})[str(result.seed)] = result
    paired = []
    for pair in pairs:
        for data_set in dict.fromkeys(place[1] for place in rows):
            a, b = rows.get((pair.a, data_set), {}), rows.get((pair.b, data_set), {})
            for column_a, column_b in pair.columns(columns):
                if _lacks(a, column_a) or _lacks(b, column_b):
                    continue
                seeds = [
                    seed
                    for seed in a
                    if seed in b and column_a in a[seed].values and column_b in b[seed].values
                ]
                sample = Sample(
                    tuple(a[seed].values[column_a] - b[seed].values[column_b] for seed in seeds)
                )
                used = tuple(row[seed] for row in (a, b) for seed in seeds)
                planned = len({*a, *b})
                paired.append(Difference(pair, data_set, column_a, column_b, sample, planned, used))
    return paired


def _lacks(row: Mapping[str, JobResult], column: str) -> bool:
    """Whether some jobs of a row are done, and none of them has this column."""
    done = [result for result in row.values() if result.values]
    return bool(done) and not any(column in result.values for result in done)


def adjusted_p_values(paired: Sequence[Difference]) -> list[float | None]:
    """p-values with Holm's correction; the tests of one net are one family."""
    families = [difference.net for difference in paired]
    return holm_within(families, [difference.sample.p_value() for difference in paired])


def check_margin(margin: float | None) -> None:
    """Raises ``UserError`` unless the margin of the equivalence test is in (0, 100]."""
    if margin is not None and not 0 < margin <= 100:
        raise UserError(
            "the margin of the equivalence test is in points of accuracy, in (0, 100], got "
            f"{margin:g} (margin)"
        )


def equivalence_p_values(paired: Sequence[Difference], margin: float | None) -> list[float | None]:
    """p-values of the equivalence test with Holm's correction; the tests of one net are one family.

    Args:
        margin: in points of accuracy; None: no test.
    """
    if margin is None:
        return [None] * len(paired)
    families = [difference.net for difference in paired]
    p_values = [difference.sample.equivalence_p_value(margin / 100) for difference in paired]
    return holm_within(families, p_values)


def pair_table(
    pairs: Sequence[Pair], paired: Sequence[Difference], margin: float | None = None
) -> Table:
    """The table of all differences.

    Args:
        margin: of the equivalence test, in points of accuracy; None: no test.
    """
    equivalent = equivalence_p_values(paired, margin)
    adjusted = adjusted_p_values(paired)
    tested = Counter(d.net for d in paired if d.sample.p_value() is not None)
    tests = max(tested.values(), default=0)
    rows = []
    for difference, p_holm, p_equal in zip(paired, adjusted, equivalent, strict=True):
        where = f" on {difference.data_set}" if difference.data_set else ""
        n = difference.sample.n
        row = [difference.pair.title + where, difference.net]
        row.append(str(n) if n == difference.planned else f"{n} of {difference.planned}")
        row.append(format_points(difference.sample.mean) if n else "")
        row.append(format_interval(difference.sample))
        row.append(format_p(difference.sample.p_value()))
        row += [format_p(p_holm)] * (tests > 1)
        rows.append([*row, format_p(p_equal)] if margin is not None else row)
    heads = ["A − B", "net", "n", "test accuracy, points", "95 % interval", "p"]
    heads += ["p, Holm"] * (tests > 1)
    heads += [] if margin is None else [f"p, within ±{margin:g}"]
    return Table("pairs", "Pairs", heads, rows, _notes(pairs, paired, tests, margin))


def _notes(
    pairs: Sequence[Pair], paired: Sequence[Difference], tests: int, margin: float | None
) -> list[str]:
    notes = [
        "A − B: difference in test accuracy, in percentage points, between runs with the same "
        "seed; mean over n seeds. 95 % interval and two-sided p: paired t test over these seeds."
    ]
    if tests > 1:
        notes.append(
            f"p, Holm: with Holm's correction for the tests of the same net ({tests} at most)."
        )
    if margin is not None:
        points = "point" if margin == 1 else "points"
        notes.append(
            f"p, within ±{margin:g}: below 0.05, the difference is shown to be smaller than "
            f"{margin:g} {points} either way (two one-sided t tests"
            f"{', with Holm’s correction' if tests > 1 else ''})."
        )
    notes += note_on_scope(paired)
    if any(difference.sample.n < 2 for difference in paired):
        notes.append("With fewer than two seeds (n < 2) there is no interval and no test.")
    if any(difference.sample.n > 1 and difference.sample.is_constant for difference in paired):
        notes.append(
            "If the difference is the same for all seeds, the interval has no width and the t test "
            "gives no p. This does not mean that other seeds give the same difference."
        )
    if any(difference.sample.n < difference.planned for difference in paired):
        notes.append("n of m: only the n seeds for which both rows have a result are compared.")
    compared = {difference.pair for difference in paired}
    notes += [
        f"Not compared, because the rows have no net in common: {pair.title}."
        for pair in pairs
        if pair not in compared
    ]
    return notes


def note_on_scope(paired: Sequence[Difference]) -> list[str]:
    """One note on which sources of variation the intervals cover; none if no seeds are compared."""
    teachers, splits = [], []
    for difference in paired:
        if difference.sample.n < 2:
            continue
        half = difference.sample.n
        for row in (difference.results[:half], difference.results[half:]):
            teachers.append({result.teacher for result in row})
            splits.append({str(result.seeds.get("data.split_seed")) for result in row})
    if not splits:
        return []
    is_shared = {
        "teacher": all(len(row) == 1 for row in teachers),
        "split": all(len(row) == 1 for row in splits),
    }
    if all(row == {None} for row in teachers):
        del is_shared["teacher"]
    shared = [name for name, same in is_shared.items() if same]
    different = [name for name in is_shared if name not in shared]
    sentences = ["The intervals cover the variation between seeds."]
    if shared:
        sentences.append(
            f"All seeds use {' and '.join(f'the same {name}' for name in shared)}, so the "
            f"intervals do not cover the variation between {_plural(shared)}."
        )
    if different:
        sentences.append(
            f"The seeds differ in {' and '.join(different)} too, so the intervals also cover the "
            f"variation between {_plural(different)}."
        )
    return [" ".join(sentences)]


def _plural(names: Sequence[str]) -> str:
    return " and ".join(f"{name}s" for name in names)


def format_points(difference: float) -> str:
    """A difference of accuracies, in percentage points."""
    text = f"{100 * difference:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def format_interval(sample: Sample) -> str:
    """The 95 % interval of differences of accuracies, in percentage points; "" for fewer than two
    values.
    """
    interval = sample.interval()
    return (
        "" if interval is None else f"{format_points(interval[0])} to {format_points(interval[1])}"
    )


def format_p(p: float | None) -> str:
    """A p-value as the tables show it; "" for None."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
