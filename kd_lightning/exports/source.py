"""The student that is exported, and its run, if that is here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.records.run_directory import is_run, read_metrics
from kd_lightning.students.file import read_student, write_student
from kd_lightning.students.load import find_file
from kd_lightning.students.of_run import file_of, read_older_run, student_of
from kd_lightning.teachers.sources import build_net


def run_of(source: Path) -> Path | None:
    """The run directory that ``source`` is, or in which it has its place; None: no run.

    The configuration of a run names code that is called, so one that merely lies beside a received
    file, or above it, is not the file's run.
    """
    source = source.expanduser().resolve()
    if source.is_dir() and is_run(source):
        return source
    folder = source if source.is_dir() else source.parent
    run = folder.parent.parent
    is_in_place = file_of(run, folder.name).parent == folder and (run / "metrics.json").is_file()
    return run if is_in_place and is_run(run) else None


def copy_student(
    source: Path, student: str | None, folder: Path, allow: Sequence[str] = ()
) -> None:
    """Writes a copy of the student file and its description into ``folder``.

    Args:
        source: a run directory, or a student file, or a folder with one.
        student: of a run directory, the name of one; None: the best on val.
        allow: packages whose functions the configuration of the run may name.

    Raises:
        UserError: there is no such student.
    """
    source = source.expanduser()
    if source.is_dir() and is_run(source):
        key = student_of(source, student)
        path = file_of(source, key)
        # a run of an earlier version has no student files
        info, state = read_student(path) if path.is_file() else read_older_run(source, key, allow)
    elif student is not None:
        raise UserError(f"--student {student} is for a run directory, {source} is none")
    else:
        info, state = read_student(find_file(source))
    write_student(folder, state, info)


def record_of(run: Path | None, info: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of the run's ``metrics.json``; None if it is not the run of this student.

    Args:
        info: the description of the student.
    """
    path = None if run is None else run / "metrics.json"
    if path is None or not path.is_file():
        return None
    record = read_metrics(path.parent)
    tested = record["nets"].get(info.get("key"), {}).get("test")
    return record if tested and tested == info.get("metrics", {}).get("test") else None


def teacher_to_time(cfg: DictConfig) -> nn.Module | None:
    """The teacher's net of a run, with initial weights, which take as long as trained ones; None if
    the run has no teacher, or its net cannot be built here.

    Args:
        cfg: of the run, with the facts of its data.
    """
    config = cfg.method.get("teacher")
    if config is None:
        return None
    if "weights" in config:
        config = config.copy()
        config.weights, config.weights_key = "none", None
    try:
        return build_net(config, 0, "teacher").eval()
    except (InstantiationException, UserError):  # a person's own package is not here, for instance
        return None
