"""What was run, when, with which versions, and the command of each run."""

import re
import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from kd_lightning.base.errors import UserError
from kd_lightning.records.jobs import Job
from kd_lightning.reports.page.blocks import Command, Facts
from kd_lightning.reports.page.records import RunRecord
from kd_lightning.reports.provenance import SHOWN, commit_of, machine_of

STAMP = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-\d\d_")  # of a directory's name
MAX_VALUES = 4  # of a fact
PROGRAM = "python -m kd_lightning.run"
# What a process that runs ``kd_lightning.run`` is called.
NAMES = ("run.py", "kd-lightning")


def facts_of(records: Sequence[RunRecord], directories: Iterable[Path]) -> Facts:
    """The facts under the title of the page, without those that no file has."""
    environments = [record.environment for record in records if record.environment]
    done = [record for record in records if record.result.metrics]
    count = f"{len(done)} of {len(records)}" if len(done) < len(records) else str(len(records))
    protocols = [record.metrics["protocol"] for record in done]
    teachers = [record.metrics["nets"].get("teacher", {}).get("origin") for record in done]
    versions = [
        f"{name} {version}"
        for name in ("kd_lightning", *SHOWN)
        for version in dict.fromkeys(str(e["versions"].get(name)) for e in environments)
    ]
    facts = {
        "runs": [count],
        "started": [started_at(directory) for directory in directories],
        "data": protocols,
        "about the data": [n for e in environments for n in e["data"].get("notes") or []],
        "teacher": teachers,
        "versions": [", ".join(versions)],
        "commit": [_short(commit_of(e["git"])) for e in environments],
        "machine": [machine_of(e["machine"]) for e in environments],
    }
    return Facts([(name, text) for name, values in facts.items() if (text := _joined(values))])


def _short(commit: str | None) -> str | None:
    return commit and commit[:12] + commit[40:]  # after its 40 digits: whether there are changes


def _joined(values: Iterable[str | None]) -> str:
    found = list(dict.fromkeys(value for value in values if value))
    more = f" · {len(found) - MAX_VALUES} more" if len(found) > MAX_VALUES else ""
    return " · ".join(found[:MAX_VALUES]) + more


def started_at(directory: Path) -> str | None:
    """The time in a directory's name, or that of its oldest configuration."""
    if match := STAMP.match(directory.resolve().name):
        day, hours, minutes = match.groups()
        return f"{day} {hours}:{minutes}"
    paths = [*directory.glob("config.yaml"), *directory.glob("*/config.yaml"),
             *directory.glob("jobs/*/config.yaml")]  # fmt: skip
    if not paths:
        return None
    oldest = min(path.stat().st_mtime for path in paths)
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(oldest))


def command_of(record: RunRecord) -> Command | None:
    """The command that repeats a run; None if no file has it."""
    if record.directory is None:
        words: Sequence[str] | None = record.result.overrides or None
    elif (record.directory / "job.json").exists():
        words = _overrides(record.directory)
    else:
        command = (record.environment or {}).get("command") or [""]
        if command[0] not in NAMES:  # a script or a notebook, which called distill(…)
            return Command(record.name, shlex.join(command)) if command[0] else None
        words = command[1:]
    return None if words is None else Command(record.name, f"{PROGRAM} {shlex.join(words)}".strip())


def _overrides(directory: Path) -> Sequence[str] | None:
    try:
        spec = Job(directory).spec
        return [*(["--config-dir", spec.config_dir] if spec.config_dir else []), *spec.overrides]
    except (UserError, OSError):
        return None
