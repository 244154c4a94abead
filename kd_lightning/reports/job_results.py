"""What a report knows of one job: what its directory says, or one line of ``records.jsonl``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kd_lightning.base.errors import UserError
from kd_lightning.records.jobs import State
from kd_lightning.records.run_directory import HARMLESS
from kd_lightning.reports.columns import values_of

FILE = "records.jsonl"
# what a run's numbers do not depend on; its length is not among them, as it is for a resumed run,
# nor is what is tested besides
ELSEWHERE = tuple(key for key in HARMLESS if key not in ("trainer.max_epochs", "evaluation"))


@dataclass(frozen=True)
class JobResult:
    """One job.

    Attributes:
        sweep: the name of its sweep; of a run that belongs to none, its directory's.
        number: of the job in its sweep; None for a run that belongs to none.
        variant: its row of the table.
        axes: what varies -> its value here.
        overrides: of the run, without those that its numbers do not depend on.
        state: how far it is.
        error: the last line of why it failed.
        seeds: ``seed``, ``data.split_seed`` and ``teacher.seed``, where they are known.
        metrics: its ``metrics.json``; None if it is not done.
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

    @cached_property
    def values(self) -> dict[str, float]:
        """Its numbers by column; {} if it is not done."""
        return {} if self.metrics is None else values_of(self.metrics)

    @property
    def seed(self) -> Any:
        return self.axes.get("seed", self.seeds.get("seed"))

    @property
    def teacher(self) -> str | None:
        """What tells its teacher from others; None without one."""
        if self.metrics is None or "teacher" not in self.metrics["nets"]:
            return None
        teacher = self.metrics["nets"]["teacher"]
        # files of one name in two folders are two teachers: their accuracy tells
        origin = teacher.get("origin", self.seeds.get("teacher.seed"))
        return f"{origin} {teacher['test']['accuracy']:.6f}"

    def data_set(self, keys: Sequence[str]) -> str:
        """The data set in words, by the axes that name one; "" where none does."""
        return " ".join(str(self.axes[key]) for key in keys if self.axes.get(key) is not None)

    def cell(self, keys: Sequence[str]) -> dict[str, Any]:
        """The axes that are neither seed nor data set."""
        return {key: value for key, value in self.axes.items() if key not in ("seed", *keys)}


def portable(record: JobResult) -> JobResult:
    """``record`` without what only its machine knows: directories, devices."""
    overrides = tuple(word for word in record.overrides if not is_elsewhere(key_of(word)))
    metrics = record.metrics
    if metrics and (teacher := metrics["nets"].get("teacher")) and "origin" in teacher:
        words = [word.rsplit("/", 1)[-1] for word in teacher["origin"].split()]
        teacher = {**teacher, "origin": " ".join(words)}
        metrics = {**metrics, "nets": {**metrics["nets"], "teacher": teacher}}
    return replace(record, overrides=overrides, metrics=metrics)


def key_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def is_elsewhere(key: str) -> bool:
    """Whether a run's numbers do not depend on this key of its configuration."""
    return any(key == name or key.startswith(f"{name}.") for name in ELSEWHERE)


def is_a_place(override: str) -> bool:
    """Whether a word of a command line says where something is, or how fast, and no more."""
    key = key_of(override)
    return is_elsewhere(key) or key in ("sweep.dir", "sweep.search.storage")


def packed(records: Sequence[JobResult]) -> str:
    """The text of ``records.jsonl``: a line for each job."""
    return "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)


def unpacked(path: Path) -> list[JobResult]:
    """The records of a ``records.jsonl``.

    Raises:
        UserError: a line that is no record.
    """
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            content = json.loads(line)
            record = JobResult(**{**content, "state": State(content["state"])})
            _ = record.values
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"line {number} of {path} is no record of a job ({error}): pack the sweep again, "
                "python -m kd_lightning.report <sweep> --out <folder>"
            ) from error
        records.append(record)
    return records
