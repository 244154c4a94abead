"""What a tracker is told of a run beside its configuration and metrics, and remembers of it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_lightning.base.files import write_text

# Overrides that say how a run is shown and kept, and not what it is.
NOT_IN_NAMES = ("logger", "callbacks", "outputs", "run_dir", "resume", "title", "hydra")


@dataclass(frozen=True)
class About:
    """A run among others.

    Attributes:
        name: its overrides.
        group: the sweep that it is a job of.
        job_type: the method.
        tags: the data set.
    """

    name: str
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()


def name_of(axes: Mapping[str, Any], overrides: Sequence[str], directory: Path) -> str:
    """A run's name: what varies in its sweep, else its overrides, else its directory's name."""
    words = [f"{key}={value}" for key, value in axes.items()]
    if not words:
        words = [o for o in overrides if re.search(r"\w+", o)[0] not in NOT_IN_NAMES]
    return " ".join(words) or directory.name


def remembered(directory: Path, key: str) -> str | None:
    """What the run directory keeps under ``key`` for a later resume; None if nothing."""
    return _content(directory).get(key)


def remember(directory: Path, key: str, value: str) -> None:
    text = json.dumps({**_content(directory), key: value}, indent=2)
    write_text(directory / "trackers.json", text + "\n")


def _content(directory: Path) -> dict[str, str]:
    path = directory / "trackers.json"
    return json.loads(path.read_text()) if path.exists() else {}
