"""What results were made from: the content of their data, and the weights of their teachers.

A path says little: a file may be replaced, and two folders may hold the same files.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.base.errors import Damaged
from kd_lightning.base.kept_files import read_json
from kd_lightning.reports.job_results import JobResult, has_no_effect

# Settings of data that do not change the samples of train, val and test.
NOT_CONTENT = ("seed", "batch_size", "augmentation", "mixing")


def hashes_of(config: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the content of a run's data, of the settings by which this follows from its files,
    and of its teacher's weights, as far as they are known.

    Args:
        config: the content of ``config.yaml``.
        environment: the content of ``environment.json``.
    """
    settings = {
        key: value
        for key, value in (config.get("data") or {}).items()
        if not has_no_effect(f"data.{key}")
        and not key.startswith("unlabeled")
        and key not in NOT_CONTENT
    }
    text = json.dumps(settings, sort_keys=True, default=str)
    hashes = {
        "data": (environment.get("data") or {}).get("fingerprint"),
        "data_settings": hashlib.sha256(text.encode()).hexdigest()[:16],
        "teacher": (environment.get("teacher") or {}).get("fingerprint"),
    }
    return {name: value for name, value in hashes.items() if value}


def read_hashes(config: Mapping[str, Any], directory: Path) -> dict[str, str]:
    """``hashes_of`` the run in a directory; {} if it has no readable ``environment.json``."""
    try:
        return hashes_of(config, read_json(directory / "environment.json"))
    except (OSError, ValueError, AttributeError, Damaged):
        return {}  # killed while it wrote the file, or of an older version


def mixed_data(results: Sequence[JobResult], data_sets: Sequence[str]) -> str | None:
    """A sentence if results have other data than their settings say: the files have changed, or
    stand in another folder that no row names.

    Args:
        data_sets: the keys that name a data set.
    """
    groups: dict[tuple[str, str, str], dict[str, str]] = {}
    for result in results:
        if {"data", "data_settings"} <= result.hashes.keys():
            root = str(result.axes.get("data.root"))
            group = (result.hashes["data_settings"], result.data_set(data_sets), root)
            name = f"{result.sweep} job {result.number}" if result.number is not None else None
            groups.setdefault(group, {}).setdefault(result.hashes["data"], name or result.sweep)
    return next(_sentences(groups.values()), None)


def _sentences(groups: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for found in groups:
        if len(found) > 1:
            first, second, *_ = [f"{name} ({data[:8]})" for data, name in found.items()]
            yield (
                f"The results are of {len(found)} data sets with the same settings, such as those "
                f"of {first} and of {second}, so rows and differences would mix them"
            )
