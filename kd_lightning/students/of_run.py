"""The students of a run: writes their files, and finds them again in the run directory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from torch import Tensor

from kd_lightning.base.allowed import check_record
from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.kept_files import read_json
from kd_lightning.base.tensor_files import read_checkpoint
from kd_lightning.records.run_directory import best_student, read_config, read_metrics
from kd_lightning.students.architecture import to_file
from kd_lightning.students.describe import describe, resizing_of
from kd_lightning.students.file import WEIGHTS_FILE, write_student

if TYPE_CHECKING:  # importing it takes seconds, and ``kd_lightning.load`` does not need it
    from kd_lightning.data.classification import ClassificationData

FOLDER = "students"
RECORDS = ("metrics.json", "environment.json")


def write_students(
    directory: Path,
    cfg: DictConfig,
    data: "ClassificationData",
    metrics: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> None:
    """Writes a file for each student, with the weights that were chosen on val, and for each soup.

    Args:
        directory: of the run, with its checkpoints.
        metrics, environment: the content of ``metrics.json`` and ``environment.json``.
    """
    for key, path in checkpoints(directory, cfg, metrics).items():
        state = read_checkpoint(path)["state_dict"]
        info = describe(key, cfg, state, resizing_of(attributes(data)), metrics, environment)
        tensors = to_file(state, info["architecture"])
        write_student(directory / FOLDER / key, tensors, info)


def checkpoints(directory: Path, cfg: DictConfig, metrics: Mapping[str, Any]) -> dict[str, Path]:
    """Name -> checkpoint of each student and each soup."""
    paths = {key: directory / f"best-{key}.ckpt" for key in cfg.method.students}
    soups = [name for name, net in metrics["nets"].items() if "members" in net]
    return paths | {name: directory / f"{name}.ckpt" for name in soups}


def attributes(data: "ClassificationData") -> dict[str, Any]:
    names = ("crop_fraction", "resize", "interpolation", "exif")
    return {name: getattr(data, name, None) for name in names}


def student_of(directory: Path, student: str | None) -> str:
    """The name of a run's student: the requested one, or the only one, or the best on val.

    Raises:
        UserError: the run is not finished, or has no such student.
    """
    if missing := [name for name in RECORDS if not (directory / name).is_file()]:
        raise UserError(
            f"{directory} is no finished run: it has no {missing[0]} (resume it with python -m "
            f"kd_lightning.run resume={directory})"
        )
    if student is None:
        return best_student(directory)
    names = checkpoints(directory, read_config(directory), read_metrics(directory))
    if student not in names:
        raise unknown(f"student of {directory}", student, names, "--student")
    return student


def file_of(directory: Path, key: str) -> Path:
    return directory / FOLDER / key / WEIGHTS_FILE


def read_older_run(
    directory: Path, key: str, allow: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``read_student`` returns, for a run of a version that wrote no student files.

    Args:
        allow: packages whose functions the configuration of the run may name.
    """
    cfg, metrics = read_config(directory), read_metrics(directory)
    check_record(cfg, directory / "config.yaml", allow)
    environment = read_json(directory / "environment.json", "data")
    if "class_names" not in environment["data"]:  # they were recorded later
        raise UserError(
            f"{directory} is of a version that wrote no student files: write them with python -m "
            f"kd_lightning.run resume={directory}"
        )
    state = read_checkpoint(checkpoints(directory, cfg, metrics)[key])["state_dict"]
    info = describe(key, cfg, state, resizing_of(cfg.data), metrics, environment)
    return info, to_file(state, info["architecture"])
