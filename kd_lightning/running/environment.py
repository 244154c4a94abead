"""What a result depends on besides its configuration: versions, commit, machine, data."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

import kd_lightning
from kd_lightning import __version__
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import read_json
from kd_lightning.data.classification import ClassificationData
from kd_lightning.records.jobs import current_job
from kd_lightning.running.determinism import describe_arithmetic
from kd_lightning.running.sweep_data import hash_of_settings
from kd_lightning.teachers.sources import Teacher

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "timm",
    "numpy",
)


# What ``distill`` was called with, as words of a command line: its program is another one.
WORDS_FROM_PYTHON = ContextVar[list[str] | None]("words_from_python", default=None)


def describe_environment(
    data: ClassificationData,
    cfg: DictConfig,
    teacher: Teacher | None,
    checked: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of ``environment.json``, as plain JSON values.

    Args:
        checked: part of the data -> how good the teacher is there; None: it was not checked.
    """
    return {
        "command": command(),
        "versions": {
            "python": platform.python_version(),
            "kd_lightning": __version__,
            **_versions(),
        },
        "git": _git(),
        "machine": {
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [
                torch.cuda.get_device_name(i)
                for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
            ],
        },
        "arithmetic": describe_arithmetic(),
        "seeds": {
            "seed": cfg.seed,
            "data.split_seed": data.split_seed,
            "teacher.seed": cfg.teacher.seed,
            **({"data.resample": data.resample} if hasattr(data, "resample") else {}),
        },
        "data": {
            "fingerprint": data.fingerprint,
            "settings_sha256": hash_of_settings(cfg),
            "classes_sha256": data.classes_sha256,
            "class_list_sha256": getattr(data, "class_list_sha256", None),
            "protocol": data.protocol,
            "dtype": sample_type(data.parts["test"].x),
            "class_names": data.class_names,
            "notes": data.notes,
        },
        "unlabeled": describe_unlabeled(data),
        "teacher": {
            "fingerprint": teacher and teacher.sha256,
            "origin": teacher and teacher.origin,
            "notes": list(teacher.notes) if teacher else [],
            **{part: (checked or {}).get(part) for part in ("val", "train")},
        },
    }


def keep_first_command(environment: dict[str, Any], directory: Path) -> None:
    """Gives the record of a resumed run the command that started it. The one that resumes it comes
    under ``resumed_by``.

    Args:
        environment: what ``describe_environment`` has returned; changed in place.
        directory: of the run.
    """
    path = directory / "environment.json"
    was = read_json(path) if path.exists() else {}
    if "command" in was and was["command"] != environment["command"]:
        environment["resumed_by"] = [*was.get("resumed_by", []), environment["command"]]
        environment["command"] = was["command"]


def sample_type(x: Any) -> str:
    """The type of a sample as a net takes it; image files are read as uint8."""
    return str(x.dtype).removeprefix("torch.") if torch.is_tensor(x) else "uint8"


def command() -> list[str]:
    """The program and its words; of a job of a sweep, those that repeat it by itself."""
    job = current_job()
    if job is None and (words := WORDS_FROM_PYTHON.get()) is not None:
        return ["run.py", *words]
    if job is None:
        return [Path(sys.argv[0]).name, *sys.argv[1:]]
    own = job.spec.config_dir
    return ["run.py", *(["--config-dir", own] if own else []), *job.spec.overrides]


def describe_unlabeled(data: ClassificationData) -> dict[str, Any] | None:
    """The samples without labels that students are trained on; None: there are none."""
    found = data.unlabeled_samples
    if found is None:
        return None
    return {
        "name": found.name,
        "samples": len(found.samples),
        "in_a_step": found.count,
        "fingerprint": found.fingerprint,
    }


def check_unchanged(directory: Path, key: str, now: str | None) -> None:
    """Raises ``UserError`` if the data or the teacher of a resumed run have changed.

    Args:
        key: "data", "unlabeled" or "teacher".
        now: its fingerprint.
    """
    path = directory / "environment.json"
    if not path.exists():
        return
    was = (read_json(path).get(key) or {}).get("fingerprint")
    if was != now:
        name, keys = key, f"{key}.…=…"
        if key == "unlabeled":
            name, keys = "content of data.unlabeled", "data.unlabeled_options=…"
        raise UserError(
            f"the {name} changed after {directory} was started (fingerprint {was}, now {now}): "
            f"start a new run, or use the old {name} ({keys})"
        )


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def _git() -> dict[str, Any] | None:
    """Commit of the source tree that this runs from, and whether code or YAML there differ from it;
    None if the package is installed.
    """
    folder = Path(kd_lightning.__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != folder.parent:
            return None
        changed = git("status", "--porcelain", "--", str(folder), str(folder.parent / "conf"))
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None
