"""Paired differences: what A has more than B under the same seed, and how sure that is."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kd_lightning.base.tables import Table
from kd_lightning.reports.columns import TOGETHER, split, students_of
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.pairs import Pair
from kd_lightning.reports.statistics import Sample, holm_within


@dataclass(frozen=True)
class Difference:
    """One metric of one pair on one data set.

    Attributes:
        pair: the rows.
        data_set: in words; "" where there is only one.
        column: the metric, of A.
        other: of B: the same, or another net's.
        sample: A − B, for each seed under which both rows have it.
        planned: seeds that either row was to have.
        records: those that ``sample`` is of.
    """

    pair: Pair
    data_set: str
    column: str
    other: str
    sample: Sample
    planned: int
    records: tuple[JobResult, ...]

    @property
    def net(self) -> str:
        """The net that is compared, or both."""
        nets = (split(self.column)[1], split(self.other)[1])
        return " − ".join(dict.fromkeys(nets))


def accuracies(columns: Sequence[str], records: Iterable[JobResult]) -> list[str]:
    """The columns that are tested: test accuracies of students and of what they make together among
    ``columns``; all there are, if it has none.
    """
    values = [record.values for record in records]
    known = [f"test/{net}/accuracy" for net in (*students_of(values), *TOGETHER)]
    known = [column for column in known if any(column in row for row in values)]
    return [column for column in columns if column in known] or known


def differences(
    pairs: Sequence[Pair],
    columns: Sequence[str],
    records: Sequence[JobResult],
    data_sets: Sequence[str],
) -> list[Difference]:
    """Each pair on each data set, in each column that both rows have, or of the nets it names."""
    rows: dict[tuple[str, str], dict[str, JobResult]] = {}
    for record in records:
        place = (record.variant, record.data_set(data_sets))
        rows.setdefault(place, {})[str(record.seed)] = record
    found = []
    for pair in pairs:
        for data_set in dict.fromkeys(place[1] for place in rows):
            a, b = rows.get((pair.a, data_set), {}), rows.get((pair.b, data_set), {})
            for mine, other in pair.columns(columns):
                if _lacks(a, mine) or _lacks(b, other):
                    continue
                both = [s for s in a if s in b and mine in a[s].values and other in b[s].values]
                sample = Sample(tuple(a[s].values[mine] - b[s].values[other] for s in both))
                used = tuple(side[seed] for side in (a, b) for seed in both)
                planned = len({*a, *b})
                found.append(Difference(pair, data_set, mine, other, sample, planned, used))
    return found


def _lacks(row: Mapping[str, JobResult], column: str) -> bool:
    """Whether a row is done and has no such net."""
    done = [record for record in row.values() if record.values]
    return bool(done) and not any(column in record.values for record in done)


def adjusted_p_values(found: Sequence[Difference]) -> list[float | None]:
    """Holm's p-values; the tests of one net are one family."""
    families = [difference.net for difference in found]
    return holm_within(families, [difference.sample.p_value() for difference in found])


def pair_table(pairs: Sequence[Pair], found: Sequence[Difference]) -> Table:
    adjusted = adjusted_p_values(found)
    tested = Counter(d.net for d in found if d.sample.p_value() is not None)
    tests = max(tested.values(), default=0)
    rows = []
    for difference, p_holm in zip(found, adjusted, strict=True):
        where = f" on {difference.data_set}" if difference.data_set else ""
        n = difference.sample.n
        row = [difference.pair.title + where, difference.net]
        row.append(str(n) if n == difference.planned else f"{n} of {difference.planned}")
        row += [signed(difference.sample.mean) if n else "", interval_of(difference.sample)]
        row.append(p_in_words(difference.sample.p_value()))
        rows.append([*row, p_in_words(p_holm)] if tests > 1 else row)
    heads = ["A − B", "net", "n", "test accuracy, points", "95 % interval", "p"]
    heads += ["p, Holm"] * (tests > 1)
    return Table("pairs", "Pairs", heads, rows, _notes(pairs, found, tests))


def _notes(pairs: Sequence[Pair], found: Sequence[Difference], tests: int) -> list[str]:
    notes = [
        "A − B under the same seed, in points of test accuracy; 95 % interval and two-sided p of "
        "the paired t test over n seeds."
    ]
    if tests > 1:
        notes.append(f"p, Holm: adjusted for the tests of the same net, {tests} at most.")
    notes += scope(found)
    if any(difference.sample.n < 2 for difference in found):
        notes.append("Where n < 2 there is no interval and no test.")
    if any(difference.sample.n > 1 and difference.sample.is_constant for difference in found):
        notes.append(
            "Where all differences are equal the interval has no width and the t test no p-value: "
            "these seeds show no variance, which is not to say that there is none."
        )
    if any(difference.sample.n < difference.planned for difference in found):
        notes.append("n of m: seeds that only one of the rows has are left out.")
    compared = {difference.pair for difference in found}
    notes += [f"Not compared, no net in common: {p.title}." for p in pairs if p not in compared]
    return notes


def scope(found: Sequence[Difference]) -> list[str]:
    """What the intervals cover: one sentence, if any seeds were compared."""
    teachers, splits = [], []
    for difference in found:
        if difference.sample.n < 2:
            continue
        half = difference.sample.n
        for side in (difference.records[:half], difference.records[half:]):
            teachers.append({record.teacher for record in side})
            splits.append({str(record.seeds.get("data.split_seed")) for record in side})
    if not splits:
        return []
    shared = {
        "one teacher": all(len(side) == 1 for side in teachers),
        "one split": all(len(side) == 1 for side in splits),
    }
    if all(side == {None} for side in teachers):
        del shared["one teacher"]
    same = [what for what, is_shared in shared.items() if is_shared]
    other = [what for what in shared if what not in same]
    covers = "The intervals are over seeds"
    if same:
        covers += f"; all seeds share {' and '.join(same)}, whose own variance they do not cover"
    if other:
        names = " and ".join(what.removeprefix("one ") for what in other)
        covers += f"; seeds differ in their {names} too, so they cover that as well"
    return [f"{covers}."]


def signed(difference: float) -> str:
    """A difference of accuracies, in points."""
    text = f"{100 * difference:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def interval_of(sample: Sample) -> str:
    """The 95 % interval of differences of accuracies, in points; "" of fewer than two."""
    interval = sample.interval()
    return "" if interval is None else f"{signed(interval[0])} to {signed(interval[1])}"


def p_in_words(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
