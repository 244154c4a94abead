"""Describes what made a report's numbers: the command, the commit, the versions, the machine.

These facts are read from the jobs' ``environment.json``. A report stores them in its ``sweep.yaml``
under ``made``, and its table shows them as a note.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.base.kept_files import read_json
from kd_lightning.base.override_words import key_of
from kd_lightning.reports.job_results import is_local

# The versions that a table's note shows; sweep.yaml has all of them.
SHOWN = ("python", "torch", "lightning")


def read_origin(
    command: Sequence[str], directory: Path, config_dir: str | None = None
) -> list[dict[str, Any]]:
    """What made the jobs in a sweep's directory; [] if no job has started yet.

    Args:
        config_dir: the folder of the user's own YAML files, of which the command gets the name.

    Returns:
        one entry: ``command``, ``commits`` (each marked if the source had local changes),
        ``versions`` (of each package, one or more), ``machines``.
    """
    environments = [_read(path) for path in sorted(directory.glob("jobs/*/environment.json"))]
    environments = [environment for environment in environments if environment is not None]
    if not environments:
        return []
    names = dict.fromkeys(name for each in environments for name in each["versions"])
    versions = {
        name: _distinct(each["versions"].get(name) for each in environments) for name in names
    }
    return [
        {
            "command": [
                *command[:1],
                *(["--config-dir", Path(config_dir).name] if config_dir else []),
                *(word for word in command[1:] if compares_folders(word) or not is_local(word)),
            ],
            "commits": _distinct(commit_of(each["git"]) for each in environments),
            "versions": {name: found for name, found in versions.items() if found},
            "machines": _distinct(machine_of(each["machine"]) for each in environments),
        }
    ]


def compares_folders(override: str) -> bool:
    """Whether a word names several folders or files of data, which are rows of the table then."""
    return key_of(override) == "data.root" and "," in override


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        content = read_json(path)
        return {key: content[key] for key in ("git", "versions", "machine")}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the job was killed while it wrote the file, or is of an older version


def _distinct(values: Iterable[str | None]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value is not None]


def commit_of(git: Mapping[str, Any] | None) -> str | None:
    if git is None:
        return None
    return git["commit"] + (" with changes" if git["dirty"] else "")


def machine_of(machine: Mapping[str, Any]) -> str:
    gpus = ", ".join(dict.fromkeys(machine["gpus"]))
    return gpus or f"{machine['cpus']} CPU cores"


def notes_on_origin(made: Sequence[Mapping[str, Any]]) -> list[str]:
    """The notes under a table: one for each command."""
    notes = []
    for entry in made:
        versions = [
            f"{name} {' and '.join(entry['versions'][name])}"
            for name in SHOWN
            if entry["versions"].get(name)
        ]
        commits = [commit[:7] + commit[40:] for commit in entry["commits"]]
        facts = [f"commit {' and '.join(commits)}"] if commits else []
        notes.append(
            f"Made by python -m kd_lightning.run {shlex.join(entry['command'])} "
            f"({', '.join([*facts, *versions, *entry['machines']])})."
        )
    return notes
