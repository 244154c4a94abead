"""Builds the main table: a row for each variant, with mean and standard deviation over its seeds.

It marks the row that is best on the validation set, and lists the jobs that are missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_lightning.base.tables import Table
from kd_lightning.records.jobs import State
from kd_lightning.reports.columns import COMBINED, OBJECTIVE, format_value, split, students_of
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.join import job_name
from kd_lightning.reports.published import (
    Published,
    notes_on_published,
    published_values,
    with_published,
)
from kd_lightning.reports.statistics import TOLERANCE, Sample


@dataclass(frozen=True)
class Row:
    """A variant.

    Attributes:
        label: its name.
        results: one for each seed, whether the job is done or not.
    """

    label: str
    results: Sequence[JobResult]

    @property
    def n(self) -> int:
        """How many of its jobs are done."""
        return sum(result.state == State.DONE for result in self.results)

    @property
    def n_text(self) -> str:
        """``n``, or "n of m" if jobs are missing."""
        return str(self.n) if self.n == len(self.results) else f"{self.n} of {len(self.results)}"

    def sample(self, column: str) -> Sample:
        return Sample(tuple(r.values[column] for r in self.results if column in r.values))

    def format_cell(self, column: str) -> str:
        """Mean ± standard deviation, and the number of values if not all finished jobs have one."""
        sample = self.sample(column)
        if not sample.n:
            return ""
        text = format_value(column, sample.mean)
        if sample.n > 1 and not column.endswith("/parameters"):
            text += f" ± {format_value(column, sample.std)}"
        return text if sample.n == self.n else f"{text} (n = {sample.n})"


def rows_of(results: Sequence[JobResult], search: bool) -> list[Row]:
    """The rows in the order of the sweep. Of a search: its finished trials, the best on the
    validation set first.
    """
    groups: dict[tuple[Any, ...], list[JobResult]] = {}
    for result in results:
        # Two trials may try the same values; each is a row.
        trial = (result.sweep, result.number) if search else ()
        groups.setdefault((result.variant, *trial), []).append(result)
    if not search:
        return [Row(variant, group) for (variant,), group in groups.items()]
    rows = [Row(f"{number}: {variant}", g) for (variant, _, number), g in groups.items()]
    # sorted() is stable: equal rows keep their order
    return sorted(
        (row for row in rows if row.n),
        key=lambda row: _score(row, OBJECTIVE) if row.sample(OBJECTIVE).n else -1,
        reverse=True,
    )


def best_row(rows: Sequence[Row], chosen_by: str) -> Row | None:
    """The row that is best on the validation set, the first of equal ones.

    None if there is only one row, no job is done, or a row lacks the column that chooses.
    """
    done = [row for row in rows if row.n]
    if len(rows) < 2 or not done or any(row.sample(chosen_by).n < row.n for row in done):
        return None
    return max(done, key=lambda row: _score(row, chosen_by))  # max returns the first of equal rows


def _score(row: Row, column: str) -> int:
    """The mean of a column, rounded so that float32 rounding errors do not decide."""
    return round(row.sample(column).mean / TOLERANCE)


def main_table(
    title: str,
    results: Sequence[JobResult],
    columns: Sequence[str],
    search: bool,
    published: Sequence[Published] = (),
    name: str = "table",
    chosen_by: str = OBJECTIVE,
) -> Table:
    """The table of all rows, with notes.

    Args:
        chosen_by: the column on val whose highest value marks a row.
    """
    rows = rows_of(results, search)
    best = best_row(rows, chosen_by)
    ours = [[row.format_cell(column) for column in columns] for row in rows]
    numbers = [published_values(published, row.results[0]) for row in rows]
    heads, cells = with_published(columns, ours, numbers)
    first = [[f"{row.label} *" if row is best else row.label, row.n_text] for row in rows]
    notes = [_note_on_numbers(rows), _note_on_choice(rows, best, chosen_by)]
    notes += [*_notes_on_equal_rows(rows), *_notes_on_teacher(rows)]
    notes += [*notes_on_published(published, results, columns), *notes_on_missing(results, search)]
    heads = ["trial" if search else "variant", "n", *heads]
    return Table(name, title, heads, [a + b for a, b in zip(first, cells, strict=True)], notes)


def _note_on_numbers(rows: Sequence[Row]) -> str:
    done = [result for row in rows for result in row.results if result.metrics]
    has_val = {bool(result.metrics["has_val"]) for result in done if result.metrics}
    numbers = {row.n for row in rows if row.n}
    if numbers == {1}:
        spread = "One seed (n = 1), so no standard deviation"
    else:
        spread = "Mean ± standard deviation over n seeds"
        spread += " (no deviation where n = 1)" * (1 in numbers)
    weights = {
        frozenset({True}): "test: with the weights chosen on the validation set; last: with the "
        "weights of the last epoch",
        frozenset({False}): "There is no validation set, so test and last both use the weights of "
        "the last epoch",
    }.get(
        frozenset(has_val),
        "test: with the weights chosen on the validation set, or those of the last epoch if there "
        "is no validation set; last: with the weights of the last epoch",
    )
    return (
        f"{spread}. {weights}. Both are measured on the test set, which was never used to choose."
    )


def _note_on_choice(rows: Sequence[Row], best: Row | None, chosen_by: str) -> str:
    done = [row for row in rows if row.n]
    if not done:
        return "No row was chosen: no job is done."
    lacking = [row.label for row in done if row.sample(chosen_by).n < row.n]
    if len(rows) == 1 and not lacking:
        return "No row was chosen: there is only one."
    if best is None:
        who = "these runs" if len(lacking) == len(done) else ", ".join(lacking)
        needed = "a validation set" if chosen_by == OBJECTIVE else chosen_by
        return f"No row was chosen: this needs {needed}, which is missing in {who}."
    highest = best.sample(chosen_by).mean
    equal = sum(abs(row.sample(chosen_by).mean - highest) < TOLERANCE for row in done)
    tied = f", the first of {equal} equal ones" if equal > 1 else ""
    incomplete = f" Only {best.n_text} seeds are done." if best.n < len(best.results) else ""
    metrics = dict.fromkeys(("accuracy", split(chosen_by)[2]))
    on_test = " ".join(f"Its test {metric}: {_on_test(best, metric)}." for metric in metrics)
    return (
        f"* chosen on the validation set ({chosen_by} {best.format_cell(chosen_by)} %, the highest "
        f"of {len(done)}{tied}): {best.label}. {on_test}{incomplete}"
    )


def _on_test(row: Row, metric: str) -> str:
    """A share of the test samples, of each student and of each of their combinations."""
    nets = [*students_of([result.values for result in row.results]), *COMBINED]
    shown = {net: row.format_cell(f"test/{net}/{metric}") for net in nets}
    return ", ".join(f"{net} {text} %" for net, text in shown.items() if text) or "not measured"


def _notes_on_equal_rows(rows: Sequence[Row]) -> list[str]:
    """Names the rows whose runs have exactly the same numbers."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        runs = {
            str(result.seed): [(k, v) for k, v in result.values.items() if "throughput" not in k]
            for result in row.results
            if result.values
        }
        if runs:
            groups.setdefault(str(sorted(runs.items())), []).append(row)
    return [
        "These rows have exactly the same numbers under every seed, so the setting in which they "
        f"differ had no effect: {'; '.join(row.label for row in equal)}."
        for equal in groups.values()
        # a search may try the same values twice
        if len({row.results[0].variant for row in equal}) > 1
    ]


def _notes_on_teacher(rows: Sequence[Row]) -> list[str]:
    """One note on the teachers that most rows share, and one for rows that have other teachers."""
    column = "test/teacher/accuracy"
    has_teacher = [column in r.values for row in rows for r in row.results if r.values]
    groups: list[tuple[dict[str | None, float], list[str]]] = []
    for row in rows:
        own = {r.teacher: r.values[column] for r in row.results if column in r.values}
        for teachers, labels in groups:
            if teachers.keys() & own.keys():
                teachers |= own
                labels.append(row.label)
                break
        else:
            groups += [(own, [row.label])] * bool(own)
    groups.sort(key=lambda group: -len(group[1]))  # stable: of groups of one size the first
    notes = []
    for teachers, labels in groups:
        sample = Sample(tuple(teachers.values()))
        accuracy = f"{format_value(column, sample.mean)} %"
        if sample.n > 1:
            accuracy = accuracy.replace(" %", f" ± {format_value(column, sample.std)} %")
            accuracy += f", mean ± standard deviation of {sample.n} teachers"
        if notes:
            notes.append(f"Other teachers, of {'; '.join(labels)}: {accuracy}.")
        elif sample.n > 1:
            notes.append(f"Test accuracy of the teachers: {accuracy}.")
        elif len(groups) == 1:
            with_one = "" if all(has_teacher) else " with a teacher"
            notes.append(
                f"All runs{with_one} have the same teacher. Its test accuracy: {accuracy}."
            )
        else:
            notes.append(f"Test accuracy of the teacher: {accuracy}.")
    return notes


def notes_on_missing(results: Sequence[JobResult], search: bool) -> list[str]:
    """A note on how many jobs have no result, and a note for each of these jobs."""
    pruned = [result for result in results if result.state == State.PRUNED]
    missing = [result for result in results if result.state != State.DONE]
    if search:
        missing = [result for result in missing if result not in pruned]
    notes = []
    if search and pruned:
        notes.append(f"Pruned by the search: {len(pruned)} of {len(results)} trials.")
    if missing:
        notes.append(f"Missing in these numbers: {len(missing)} of {len(results)} jobs.")
    several = len({result.sweep for result in results}) > 1
    return notes + [_note_on_job(result, several) for result in missing]


def _note_on_job(result: JobResult, several_sweeps: bool) -> str:
    short = not several_sweeps and result.number is not None
    name = f"job {result.number}" if short else job_name(result)
    axes: Mapping[str, object] = {} if result.seed is None else {"seed": result.seed}
    where = ", ".join([result.variant, *(f"{key} {value}" for key, value in axes.items())])
    error = f": {result.error}" if result.error else ""
    return f"{name} ({where}): {result.state}{error}"
