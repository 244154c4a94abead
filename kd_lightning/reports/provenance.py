"""What made a report's numbers: the command, the commit, the versions, the machine.

Read from the jobs' ``environment.json``, kept in a packed report's ``sweep.yaml`` under ``made``,
and said under its table.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.reports.job_results import is_a_place

SHOWN = ("python", "torch", "lightning")  # of the versions, in a table's note; sweep.yaml has all


def made_by(command: Sequence[str], directory: Path) -> list[dict[str, Any]]:
    """What made the jobs of a sweep's directory; [] before one has begun.

    Returns:
        one entry: ``command``, ``commits`` (marked where the source had changes), ``versions`` (of
        each package one, or several), ``machines``.
    """
    found = [_read(path) for path in sorted(directory.glob("jobs/*/environment.json"))]
    found = [one for one in found if one is not None]
    if not found:
        return []
    names = dict.fromkeys(name for one in found for name in one["versions"])
    versions = {name: _each(one["versions"].get(name) for one in found) for name in names}
    return [
        {
            "command": [word for word in command if not is_a_place(word)],
            "commits": _each(_commit(one["git"]) for one in found),
            "versions": {name: of_it for name, of_it in versions.items() if of_it},
            "machines": _each(_machine(one["machine"]) for one in found),
        }
    ]


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: content[key] for key in ("git", "versions", "machine")}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a job that was killed in the middle of a write, or is of an older record


def _each(values: Iterable[str | None]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value is not None]


def _commit(git: Mapping[str, Any] | None) -> str | None:
    if git is None:
        return None
    return git["commit"] + (" with changes" if git["dirty"] else "")


def _machine(machine: Mapping[str, Any]) -> str:
    gpus = ", ".join(dict.fromkeys(machine["gpus"]))
    return gpus or f"{machine['cpus']} CPU cores"


def sentences(made: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands under a table: a sentence for each command."""
    said = []
    for one in made:
        versions = [
            f"{name} {' and '.join(one['versions'][name])}"
            for name in SHOWN
            if one["versions"].get(name)
        ]
        commits = [commit[:7] + commit[40:] for commit in one["commits"]]
        facts = [f"commit {' and '.join(commits)}"] if commits else []
        said.append(
            f"Made by python -m kd_lightning.run {shlex.join(one['command'])} "
            f"({', '.join([*facts, *versions, *one['machines']])})."
        )
    return said
