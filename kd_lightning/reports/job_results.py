"""``JobResult``: the result of one job, from its directory or from a line of ``records.jsonl``.

``records.jsonl`` holds one JSON object for each job of a sweep. With ``sweep.yaml`` it is all that
is needed to make the report again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import read_text
from kd_lightning.base.override_words import key_of
from kd_lightning.records.jobs import State
from kd_lightning.records.resumed_config import CHANGEABLE_ON_RESUME
from kd_lightning.reports.columns import values_of
from kd_lightning.reports.correctness import Correct

FILE = "records.jsonl"
# Keys that do not change a run's numbers: those that may change when a run is resumed, except the
# number of epochs, the settings of the evaluation and the teacher.
NO_EFFECT = tuple(
    key
    for key in CHANGEABLE_ON_RESUME
    if key not in ("trainer.max_epochs", "evaluation", "teacher.source")
)
# Keys below them that do change a run's numbers
WITH_EFFECT = ("hardware.precision", "hardware.teacher_precision")


@dataclass(frozen=True)
class JobResult:
    """The result of one job: what was run, how it ended, and its metrics.

    Attributes:
        sweep: the name of its sweep, or the name of the run directory if it is a single run.
        number: the number of the job in its sweep; None for a single run.
        variant: its row of the table.
        axes: each key that varies in the sweep -> its value in this job.
        overrides: of the run, without those that have no effect on its numbers.
        state: the state of the job.
        error: the last line of its error message, if it failed.
        seeds: ``seed``, ``data.split_seed``, ``teacher.seed`` and, of UCR problems,
            ``data.resample``, if they are known.
        metrics: the content of its ``metrics.json``; None if the job is not done.
        hashes: of its data and of its teacher (``reports/contents.py``), if they are known.
        correct: which test samples its nets got right, if that is known.
    """

    sweep: str
    number: int | None
    variant: str
    axes: Mapping[str, Any]
    overrides: Sequence[str] = ()
    state: State = State.DONE
    error: str | None = None
    seeds: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    correct: Correct = field(default_factory=Correct, compare=False, repr=False)

    @cached_property
    def values(self) -> dict[str, float]:
        """Its numbers by column; {} if the job is not done."""
        return {} if self.metrics is None else values_of(self.metrics)

    @property
    def seed(self) -> Any:
        return self.axes.get("seed", self.seeds.get("seed"))

    @property
    def teacher(self) -> str | None:
        """A text that identifies its teacher; None if there is no teacher."""
        if self.metrics is None or "teacher" not in self.metrics["nets"]:
            return None
        teacher = self.metrics["nets"]["teacher"]
        # Two teachers may have the same file name in different folders; their accuracy differs.
        origin = teacher.get("origin", self.seeds.get("teacher.seed"))
        weights = self.hashes.get("teacher", "")
        return f"{origin} {teacher['test']['accuracy']:.6f} {weights}"

    def data_set(self, keys: Sequence[str]) -> str:
        """The name of the data set, from the axes ``keys``; "" if none of them varies."""
        return " ".join(str(self.axes[key]) for key in keys if self.axes.get(key) is not None)

    def settings(self, keys: Sequence[str]) -> dict[str, Any]:
        """The axes except the seed and ``keys``, which name the data set."""
        return {key: value for key, value in self.axes.items() if key not in ("seed", *keys)}


def portable(result: JobResult) -> JobResult:
    """``result`` without what only concerns one machine: directories, devices."""
    overrides = tuple(word for word in result.overrides if not has_no_effect(key_of(word)))
    metrics = result.metrics
    if metrics and (teacher := metrics["nets"].get("teacher")) and "origin" in teacher:
        words = [word.rsplit("/", 1)[-1] for word in teacher["origin"].split()]
        teacher = {**teacher, "origin": " ".join(words)}
        metrics = {**metrics, "nets": {**metrics["nets"], "teacher": teacher}}
    return replace(result, overrides=overrides, metrics=metrics)


def has_no_effect(key: str) -> bool:
    """Whether this key of the configuration does not change a run's numbers."""
    return key not in WITH_EFFECT and any(
        key == name or key.startswith(f"{name}.") for name in NO_EFFECT
    )


def is_local(override: str) -> bool:
    """Whether a word of a command line only concerns the machine: where files are, how fast it
    runs.
    """
    key = key_of(override)
    return has_no_effect(key) or key in ("sweep.dir", "sweep.search.storage")


def to_jsonl(results: Sequence[JobResult]) -> str:
    """The text of ``records.jsonl``: one line for each job."""
    # without what they got right, which is in a file of its own
    plain = [asdict(replace(result, correct=Correct())) for result in results]
    for content in plain:
        del content["correct"]
        if not content["hashes"]:  # of an older version
            del content["hashes"]
    return "".join(json.dumps(content, ensure_ascii=False) + "\n" for content in plain)


def read_jsonl(path: Path) -> list[JobResult]:
    """Reads a ``records.jsonl``.

    Raises:
        UserError: a line is not the result of a job.
    """
    results = []
    # not splitlines(), which also splits at signs that a title may have
    text = read_text(path).removesuffix("\n")
    for number, line in enumerate(text.split("\n") if text else (), start=1):
        try:
            content = json.loads(line)
            result = JobResult(**{**content, "state": State(content["state"])})
            _ = result.values
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"line {number} of {path} is not the result of a job ({error}): write the file "
                "again, python -m kd_lightning.report <sweep> --out <folder>"
            ) from error
        results.append(result)
    return results
