"""Reads the files of a run that a page shows.

A file that is missing or cannot be read is None: it is of an older version, or was not copied. Only
``metrics.json`` is needed.
"""

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kd_lightning.base.kept_files import check_archive, read_json, read_text
from kd_lightning.records.jobs import jobs_of
from kd_lightning.reports.columns import students_of
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.sources import configurations

Rows = list[dict[str, float]]
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, csv.Error)


@dataclass(frozen=True)
class RunRecord:
    """A run and its files.

    Attributes:
        result: its row of a report.
        directory: its run directory; None if only its line of ``records.jsonl`` is there.
        data_set: its name, where the report has several; else "".
    """

    result: JobResult
    directory: Path | None
    data_set: str = ""

    @property
    def row(self) -> str:
        """Its row, and its data set where there are several."""
        return ", ".join(filter(None, [self.data_set, self.result.variant]))

    @property
    def name(self) -> str:
        """Its row and its seed."""
        return f"{self.row}, seed {self.result.seed}"

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.result.metrics or {"nets": {}}

    @property
    def nets(self) -> list[str]:
        return list(self.metrics["nets"])

    @property
    def students(self) -> list[str]:
        return students_of([self.result.values])

    @cached_property
    def environment(self) -> dict[str, Any] | None:
        content = self._json("environment.json") or {}
        return content if set(content) >= {"versions", "git", "machine", "data"} else None

    @cached_property
    def calibration(self) -> dict[str, Any] | None:
        return self._json("calibration.json")

    @cached_property
    def epochs(self) -> Rows:
        """The rows of ``epochs.csv``, without empty cells."""
        return self._rows("epochs.csv")

    @cached_property
    def steps(self) -> Rows:
        """The rows of the CSV logger, which has what is logged in steps; [] without it. A resumed
        run has a file for each start; of a step that was done again, the last row counts.
        """
        if self.directory is None:
            return []
        folders = [path for path in self.directory.glob("csv/version_*") if path.name[8:].isdigit()]
        last = {}
        for folder in sorted(folders, key=lambda path: int(path.name[8:])):
            for row in self._rows(f"csv/{folder.name}/metrics.csv"):
                if "step" in row:
                    last[row["step"]] = {**last.get(row["step"], {}), **row}
        return [last[step] for step in sorted(last)]

    @cached_property
    def table(self) -> list[dict[str, str]]:
        """The rows of ``table.csv``."""
        if self.directory is None:
            return []
        try:
            return list(csv.DictReader(io.StringIO(read_text(self.directory / "table.csv"))))
        except UNREADABLE:
            return []

    @cached_property
    def caption(self) -> list[str]:
        """The lines under the table in ``table.md``."""
        try:
            lines = read_text(self.directory / "table.md").splitlines()
        except (*UNREADABLE, TypeError):
            return []
        return [line for line in lines if line and not line.startswith(("#", "|"))]

    @cached_property
    def predictions(self) -> dict[str, np.ndarray] | None:
        return self._arrays("test_predictions.npz")

    @cached_property
    def examples(self) -> dict[str, np.ndarray] | None:
        return self._arrays("test_examples.npz")

    @property
    def num_test(self) -> int | None:
        """The number of test samples; None if no file has it."""
        if self.predictions is not None:
            return len(self.predictions["labels"])
        for net in (self.calibration or {}).values():
            return sum(net["test"]["reliability"]["count"])
        return None

    def class_name(self, label: int) -> str:
        names = ((self.environment or {}).get("data") or {}).get("class_names") or []
        return str(names[label]) if 0 <= label < len(names) else str(label)

    def _json(self, name: str) -> dict[str, Any] | None:
        if self.directory is None:
            return None
        try:
            return read_json(self.directory / name)
        except UNREADABLE:
            return None

    def _rows(self, name: str) -> Rows:
        if self.directory is None:
            return []
        try:
            file = io.StringIO(read_text(self.directory / name))
            return [_numbers(row) for row in csv.DictReader(file)]
        except UNREADABLE:
            return []

    def _arrays(self, name: str) -> dict[str, np.ndarray] | None:
        if self.directory is None:
            return None
        try:
            check_archive(self.directory / name)
            with np.load(self.directory / name) as file:
                return dict(file)
        except UNREADABLE:
            return None


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name and value}


def records_of(
    results: Sequence[JobResult], directories: Iterable[Path], data_sets: Sequence[str] = ()
) -> list[RunRecord]:
    """The results with their run directories.

    Args:
        results: of a report.
        directories: those that the report was built from.
        data_sets: the keys that name a data set.
    """
    names = [result.data_set(data_sets) for result in results]
    names = names if len(set(names)) > 1 else [""] * len(names)
    found: dict[tuple[str, int | None], list[Path]] = {}
    for directory in directories:
        for key, path in _run_directories(directory):
            found.setdefault(key, []).append(path)
    records = []
    for result, name in zip(results, names, strict=True):
        paths = found.get((result.sweep, result.number)) or [None]
        records.append(RunRecord(result, paths.pop(0) if len(paths) > 1 else paths[0], name))
    return records


def _run_directories(directory: Path) -> Iterable[tuple[tuple[str, int | None], Path]]:
    """(name of the sweep or run, number of the job), run directory."""
    jobs = jobs_of(directory)
    for job in jobs:
        spec = job.spec
        yield (spec.sweep, spec.number), job.directory
    if not jobs:
        for path in configurations(directory):
            yield (path.parent.resolve().name, None), path.parent
