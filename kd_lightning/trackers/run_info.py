"""The name, group and tags of a run in a tracker, and the ids that a resumed run needs again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_lightning.base.files import json_text
from kd_lightning.base.kept_files import read_json, write_kept

# Overrides that do not change the results of a run, and so are not part of its name.
NOT_IN_NAMES = ("logger", "callbacks", "outputs", "run_dir", "resume", "title", "hydra")


@dataclass(frozen=True)
class RunInfo:
    """How a run appears in a tracker.

    Attributes:
        name: of the run; by default its overrides.
        group: the sweep that the run is a job of.
        job_type: the method.
        tags: the data set.
    """

    name: str
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()


def run_name(axes: Mapping[str, Any], overrides: Sequence[str], directory: Path) -> str:
    """A name for a run: its values of what varies in the sweep; else its overrides; else the name
    of its directory.
    """
    words = [f"{key}={value}" for key, value in axes.items()]
    if not words:
        words = [o for o in overrides if re.search(r"\w+", o)[0] not in NOT_IN_NAMES]
    return " ".join(words) or directory.name


def load_value(directory: Path, key: str) -> str | None:
    """The value that ``save_value`` stored in a run directory; None if there is none."""
    return _content(directory).get(key)


def save_value(directory: Path, key: str, value: str) -> None:
    """Stores a value in ``trackers.json`` of a run directory, for a resumed run."""
    text = json_text({**_content(directory), key: value})
    write_kept(directory, {"trackers.json": text})


def _content(directory: Path) -> dict[str, str]:
    path = directory / "trackers.json"
    return read_json(path) if path.exists() else {}
