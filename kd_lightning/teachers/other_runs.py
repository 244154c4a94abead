"""A teacher that is the student of another run: which one, and whether its data are this run's."""

from pathlib import Path

from omegaconf import DictConfig

from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import read_json
from kd_lightning.data.classification import ClassificationData
from kd_lightning.models.checkpoints import IN_FOLDERS, weights_in
from kd_lightning.records.run_directory import best_student, is_run, read_config
from kd_lightning.teachers.class_order import Rows, by_names


def run_and_student(path: Path) -> tuple[Path, str | None] | None:
    """The run directory that a folder is, or is the ``students/<key>`` of, with that key; None if
    the folder holds files of weights and no run, or is no folder.
    """
    if not path.is_dir():
        return None
    run = path.parent.parent  # of a relative path too
    if path.parent.name == "students" and is_run(run) and (run / "metrics.json").exists():
        # a soup of students is a file of weights alone
        return (run, path.name) if path.name in read_config(run).method.students else None
    # a folder with weights under these names may have a metrics.json or a config.yaml of its own
    has_weights = any((path / name).is_file() for name in IN_FOLDERS)
    # a run that is not finished has weights too, of its last and of its best epochs
    return (path, None) if not has_weights and (is_run(path) or not weights_in(path)) else None


def the_student_of(directory: Path) -> str:
    """The student of a run directory: its only one, or the one that did best on val."""
    if not (directory / "metrics.json").exists():
        raise UserError(
            f"teacher.source={directory} is no finished run: expected metrics.json, config.yaml and"
            f" best-<key>.ckpt in it, or {' or '.join(IN_FOLDERS)}"
        )
    return best_student(directory)


def check_same_data(directory: Path, cfg: DictConfig, data: ClassificationData) -> Rows:
    """The rows of a run's head for our classes.

    Raises:
        UserError: the run had other classes, or may have seen our val or test part.
    """
    was = read_json(directory / "environment.json", "data")["data"]
    rows = Rows(None, True, "")
    if was["classes_sha256"] != data.classes_sha256:
        names = was.get("class_names", [])
        if not set(data.class_names) <= set(names):
            count = read_config(directory).task.num_classes
            raise UserError(
                f"the teacher must know the data's {data.num_classes} classes, {directory} was "
                f"trained on {count} other classes (teacher.source=…)"
            )
        rows = by_names(data.class_names, names, f"the names in {directory}")
    check_same_split(directory, was["fingerprint"], cfg, data, f" ({was['protocol']})")
    return rows


def check_same_split(
    path: Path, fingerprint: str | None, cfg: DictConfig, data: ClassificationData, more: str = ""
) -> None:
    """Raises ``UserError`` if a teacher may have seen our val or test part.

    Args:
        path: of the teacher.
        fingerprint: of the data that it was trained on; None: not known.
        more: what is said about these data.
    """
    if fingerprint not in (None, data.fingerprint) and not cfg.teacher.other_data:
        raise UserError(
            f"{path} was trained on other data or another split{more}, so it may have seen this "
            "run's val or test part: set data.… as it was there, or teacher.other_data=true if it "
            "has not"
        )


def check_split_of_file(
    path: Path, fingerprint: str | None, cfg: DictConfig, data: ClassificationData
) -> None:
    """``check_same_split`` for a file of weights: its own fingerprint, or that of the run in whose
    directory it is (the best epochs, the last, a soup).
    """
    beside = path.parent / "environment.json"
    is_of_run = is_run(path.parent) or path.name.startswith(("best-", "last."))
    if fingerprint is None and is_of_run and beside.exists():
        fingerprint = read_json(beside, "data")["data"]["fingerprint"]
    check_same_split(path, fingerprint, cfg, data)
