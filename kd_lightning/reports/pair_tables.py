"""Builds the tables of paired differences, one for each metric, with their notes."""

from collections import Counter
from collections.abc import Sequence

from kd_lightning.base.tables import Table
from kd_lightning.reports.columns import PERCENT, measure_of
from kd_lightning.reports.differences import Difference, adjusted_p_values, equivalence_p_values
from kd_lightning.reports.formats import (
    difference_heading,
    format_difference,
    format_interval,
    format_margin,
    format_p,
)
from kd_lightning.reports.pairs import Pair
from kd_lightning.reports.power import note_on_power

# which samples are train, val and test follows from these
SPLITS = ("data.split_seed", "data.resample")


def pair_table(
    pairs: Sequence[Pair],
    metric: str,
    paired: Sequence[Difference],
    margin: float | None = None,
) -> Table:
    """The table of all differences in a metric.

    Args:
        metric: its name in ``compared``.
        margin: of the equivalence test, in points; None: no test. Metrics that are no shares have
            no test.
    """
    _, name = measure_of(metric)
    if name not in PERCENT:
        margin = None
    equivalent = equivalence_p_values(paired, margin)
    adjusted = adjusted_p_values(paired)
    tested = {d.family for d in paired if d.sample.has_test}
    tests = max(Counter(d.family for d in paired if d.family in tested).values(), default=0)
    has_kinds = any(difference.exploratory for difference in paired)
    has_test = any(difference.interval_with_test for difference in paired)
    rows = []
    for difference, p_holm, p_equal in zip(paired, adjusted, equivalent, strict=True):
        title, *cells = _cells(name, difference)
        row = [title, *[difference.kind] * has_kinds, *cells]
        row += [format_interval(name, difference.interval_with_test)] * has_test
        row.append(format_p(difference.sample.p_value()))
        row += [format_p(p_holm)] * (tests > 1)
        rows.append([*row, format_p(p_equal)] if margin is not None else row)
    heads = ["A − B", *["contrast"] * has_kinds, "net", "n", difference_heading(metric)]
    heads += ["95 % interval", *["with other test samples"] * has_test, "p"]
    heads += ["p, Holm"] * (tests > 1)
    heads += [] if margin is None else [f"p, within ±{margin:g}"]
    notes = _notes(pairs, metric, paired, tests, margin)
    return Table("pairs", title_of("Pairs", metric), heads, rows, notes)


def _cells(metric: str, difference: Difference) -> list[str]:
    """The pair, its net, n, the difference and its interval."""
    where = f" on {difference.data_set}" if difference.data_set else ""
    n = difference.sample.n
    return [
        difference.pair.title + where,
        difference.net,
        str(n) if n == difference.planned else f"{n} of {difference.planned}",
        format_difference(metric, difference.sample.mean) if n else "",
        format_interval(metric, difference.sample.interval()),
    ]


def title_of(title: str, metric: str) -> str:
    """The title of a table of pairs; accuracy, the usual metric, is named in the columns alone."""
    return title if metric == "accuracy" else f"{title}: {metric}"


def _notes(
    pairs: Sequence[Pair],
    metric: str,
    paired: Sequence[Difference],
    tests: int,
    margin: float | None,
) -> list[str]:
    part, name = measure_of(metric)
    unit = ", in percentage points," if name in PERCENT else ""
    weights = " with the weights of the last epoch" if part == "last" else ""
    notes = [
        f"A − B: difference in test {name}{unit}{weights} between runs with the same seed; mean "
        "over n seeds. 95 % interval and two-sided p: paired t test over these seeds."
    ]
    if any(difference.interval_with_test for difference in paired):
        notes.append(
            "With other test samples: the interval over other seeds and other test samples like "
            "these, both drawn at random; equal to the first if the test samples add nothing that "
            "is seen beside the seeds. The first interval and all p hold for this test set."
        )
    if any(difference.sample.overlap for difference in paired):
        notes.append(
            "The seeds differ in which samples are train and which are test, so their values vary "
            "together: intervals and p are corrected for it (Nadeau and Bengio 2003)."
        )
    notes += note_on_power(paired, name)
    if any(difference.exploratory for difference in paired):
        notes.append(
            "Contrast: the primary ones were named before the study ran. An exploratory one is a "
            "hint for another study, whatever its p; each kind has its own correction."
        )
    if tests > 1:
        notes.append(
            f"p, Holm: with Holm's correction for the tests of the same net ({tests} at most)."
        )
    if margin is not None:
        notes.append(
            f"p, within ±{margin:g}: below 0.05, the difference is shown to be smaller than "
            f"{format_margin(margin)} either way (two one-sided t tests"
            f"{', with Holm’s correction' if tests > 1 else ''})."
        )
    notes += note_on_scope(paired)
    if any(difference.sample.n < 2 for difference in paired):
        notes.append("With fewer than two seeds (n < 2) there is no interval and no test.")
    if any(difference.sample.n > 1 and difference.sample.is_constant for difference in paired):
        notes.append(
            "If the difference is the same for all seeds, the interval has no width and the t "
            "tests give no p. This does not mean that other seeds give the same difference."
        )
    if any(difference.sample.n < difference.planned for difference in paired):
        notes.append("n of m: only the n seeds for which both rows have a result are compared.")
    if any(difference.sample.n < difference.declared for difference in paired):
        notes.append(
            "Not all seeds that the study named are here. Its answer is the table of them all: "
            "until then p and the test of equality decide nothing, or each look would be one more "
            "chance to find something."
        )
    compared = {difference.pair for difference in paired}
    lacking = "" if metric == "accuracy" else f" with test {metric}"
    notes += [
        f"Not compared, because the rows have no net{lacking} in common: {pair.title}."
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
            splits.append({str([result.seeds.get(key) for key in SPLITS]) for result in row})
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
