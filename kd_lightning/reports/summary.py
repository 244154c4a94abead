"""The main table: a row for each variant, mean and standard deviation over its seeds.

What val chooses is marked, and what is missing is named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_lightning.base.tables import Table
from kd_lightning.records.jobs import State
from kd_lightning.reports.columns import OBJECTIVE, TOGETHER, show, students_of
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.join import name_of
from kd_lightning.reports.published import Published, beside, numbers_of, sentences
from kd_lightning.reports.statistics import EQUAL, Sample


@dataclass(frozen=True)
class Row:
    """A variant.

    Attributes:
        label: its name.
        records: its jobs, one for each seed, done or not.
    """

    label: str
    records: Sequence[JobResult]

    @property
    def n(self) -> int:
        return sum(record.state == State.DONE for record in self.records)

    @property
    def n_in_words(self) -> str:
        """Marked where jobs are missing."""
        return str(self.n) if self.n == len(self.records) else f"{self.n} of {len(self.records)}"

    def sample(self, column: str) -> Sample:
        return Sample(tuple(r.values[column] for r in self.records if column in r.values))

    def show(self, column: str) -> str:
        """A cell: mean ± std; how many values, where they are fewer than the jobs done."""
        sample = self.sample(column)
        if not sample.n:
            return ""
        text = show(column, sample.mean)
        if sample.n > 1 and not column.endswith("/parameters"):
            text += f" ± {show(column, sample.std)}"
        return text if sample.n == self.n else f"{text} (n = {sample.n})"


def rows_of(records: Sequence[JobResult], search: bool) -> list[Row]:
    """The rows, in the order of the plan; a search's trials by their objective, the best first,
    and without those that have none.
    """
    groups: dict[tuple[Any, ...], list[JobResult]] = {}
    for record in records:
        # a trial that tries what another has tried is a row of its own
        trial = (record.sweep, record.number) if search else ()
        groups.setdefault((record.variant, *trial), []).append(record)
    if not search:
        return [Row(variant, group) for (variant,), group in groups.items()]
    rows = [Row(f"{number}: {variant}", g) for (variant, _, number), g in groups.items()]
    # of equals the first stays first: sorted is stable
    return sorted(
        (row for row in rows if row.n),
        key=lambda row: _rank(row) if row.sample(OBJECTIVE).n else -1,
        reverse=True,
    )


def chosen(rows: Sequence[Row]) -> Row | None:
    """The row that val chooses, the first of equals; None if there is one row that has no val, or
    no other row.
    """
    done = [row for row in rows if row.n]
    if len(rows) < 2 or not done or any(row.sample(OBJECTIVE).n < row.n for row in done):
        return None
    return max(done, key=_rank)  # max returns the first of equals


def _rank(row: Row) -> int:
    """By which val chooses: equal accuracies may differ by what float32 cannot hold."""
    return round(row.sample(OBJECTIVE).mean / EQUAL)


def main_table(
    title: str,
    records: Sequence[JobResult],
    columns: Sequence[str],
    search: bool,
    reported: Sequence[Published] = (),
    name: str = "table",
) -> Table:
    rows = rows_of(records, search)
    best = chosen(rows)
    ours = [[row.show(column) for column in columns] for row in rows]
    heads, cells = beside(columns, ours, [numbers_of(reported, row.records[0]) for row in rows])
    first = [[f"{row.label} *" if row is best else row.label, row.n_in_words] for row in rows]
    notes = [_meaning(rows), _choice(rows, best), *_equals(rows), *_teacher(records)]
    notes += [*sentences(reported, records, columns), *missing(records, search)]
    heads = ["trial" if search else "variant", "n", *heads]
    return Table(name, title, heads, [a + b for a, b in zip(first, cells, strict=True)], notes)


def _meaning(rows: Sequence[Row]) -> str:
    done = [record for row in rows for record in row.records if record.metrics]
    has_val = {bool(record.metrics["has_val"]) for record in done if record.metrics}
    several = any(row.n > 1 for row in rows)
    spread = "mean ± standard deviation over n seeds" if several else "n = 1: no deviation"
    if any(row.n == 1 for row in rows) and several:
        spread += " (none where n = 1)"
    weights = {
        frozenset({True}): "test: the weights chosen on val; last: those of the last epoch",
        frozenset({False}): "no val part: test and last are both of the last epoch",
    }.get(frozenset(has_val), "test: the weights chosen on val, where there is one, else the last")
    return f"{spread}. {weights}; both on the test part, which chose nothing."


def _choice(rows: Sequence[Row], best: Row | None) -> str:
    done = [row for row in rows if row.n]
    if not done:
        return "Nothing was chosen: no job is done."
    without = [row.label for row in done if row.sample(OBJECTIVE).n < row.n]
    if len(rows) == 1 and not without:
        return "One variant: there was nothing to choose between."
    if best is None:
        who = "the runs" if len(without) == len(done) else ", ".join(without)
        return f"Nothing was chosen: that takes a val part, which {who} have not."
    values = [record.values for record in best.records]
    nets = [*students_of(values), *TOGETHER]
    shown = {net: best.show(f"test/{net}/accuracy") for net in nets}
    on_test = ", ".join(f"{net} {text} %" for net, text in shown.items() if text)
    highest = best.sample(OBJECTIVE).mean
    equals = sum(abs(row.sample(OBJECTIVE).mean - highest) < EQUAL for row in done)
    tied = f", the first of {equals} equals" if equals > 1 else ""
    short = f" It has {best.n_in_words} seeds." if best.n < len(best.records) else ""
    return (
        f"* chosen on val ({OBJECTIVE} {best.show(OBJECTIVE)} %, the highest of {len(done)}"
        f"{tied}): {best.label}. Its test accuracy: {on_test}.{short}"
    )


def _equals(rows: Sequence[Row]) -> list[str]:
    """Rows whose runs are the same to the last bit: what sets them apart had no effect."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        runs = {
            str(record.seed): [(k, v) for k, v in record.values.items() if "throughput" not in k]
            for record in row.records
            if record.values
        }
        if runs:
            groups.setdefault(str(sorted(runs.items())), []).append(row.label)
    return [
        f"The same in every number under every seed, so what sets them apart had no effect: "
        f"{'; '.join(labels)}."
        for labels in groups.values()
        if len(labels) > 1
    ]


def _teacher(records: Sequence[JobResult]) -> list[str]:
    column = "test/teacher/accuracy"
    by_teacher = {r.teacher: r.values[column] for r in records if column in r.values}
    if not by_teacher:
        return []
    sample = Sample(tuple(by_teacher.values()))
    if sample.n == 1:
        return [f"Teacher, the same in all: {show(column, sample.mean)} % on test."]
    spread = f"{show(column, sample.mean)} ± {show(column, sample.std)} %"
    return [f"Teachers: {spread} on test, mean ± standard deviation of {sample.n} teachers."]


def missing(records: Sequence[JobResult], search: bool) -> list[str]:
    """A sentence on how many jobs are in no mean, and a line for each."""
    pruned = [record for record in records if record.state == State.PRUNED]
    absent = [record for record in records if record.state != State.DONE]
    if search:
        absent = [record for record in absent if record not in pruned]
    lines = [f"Pruned by the search: {len(pruned)} of {len(records)} trials."] * bool(
        search and pruned
    )
    if absent:
        lines.append(f"Not in these numbers: {len(absent)} of {len(records)} jobs.")
    several = len({record.sweep for record in records}) > 1
    return lines + [_absence(record, several) for record in absent]


def _absence(record: JobResult, several: bool) -> str:
    name = name_of(record) if several or record.number is None else f"job {record.number}"
    axes: Mapping[str, object] = {} if record.seed is None else {"seed": record.seed}
    where = ", ".join([record.variant, *(f"{key} {value}" for key, value in axes.items())])
    error = f": {record.error}" if record.error else ""
    return f"{name} ({where}): {record.state}{error}"
