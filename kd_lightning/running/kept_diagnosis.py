"""The diagnosis of a teacher is made once for each teacher and its data, and then found again.

The jobs of a sweep share their teacher, and a diagnosis costs many passes over 200 samples.
"""

import dataclasses
import hashlib
import json
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from kd_lightning import __version__
from kd_lightning.base.errors import UserError
from kd_lightning.base.files import json_text
from kd_lightning.base.kept_files import read_text, write_kept
from kd_lightning.data.classification import ClassificationData
from kd_lightning.records.run_directory import make_directory
from kd_lightning.running.teacher_diagnosis import Place, diagnose
from kd_lightning.teachers.significance import Predictions
from kd_lightning.teachers.sources import Teacher
from kd_lightning.teachers.store import shape_hash

# Attributes of data that decide how a sample looks; not all data have them.
LOOKS = ("size", "resize", "crop_fraction", "interpolation", "exif")


@dataclasses.dataclass(frozen=True)
class Finding:
    """A use of a teacher that is clearly better than that of the run.

    Attributes:
        accuracy: on this number of samples.
        words, advice: how the teacher is used, and what gives that, in words.
    """

    accuracy: float
    samples: int
    words: str
    advice: str


def find_better_use(
    cfg: DictConfig,
    data: ClassificationData,
    teacher: Teacher,
    place: Place,
    judged: Predictions,
) -> Finding | None:
    """The result of ``diagnose`` for the samples that were judged, kept or new.

    It is kept in ``teacher.store``, unless it makes the run stop: such a run writes nothing.
    """
    path = Path(cfg.teacher.store) / "checks" / f"{key_of(cfg, data, teacher, judged)}.json"
    if path.exists() and (kept := read_kept(path)) is not None:
        return kept[0]
    trial = diagnose(teacher.net, data, judged.chosen, place, cfg.method.teacher.keys())
    found = None
    if trial is not None:
        other = trial.alternative
        found = Finding(trial.accuracy, len(trial.right), other.words, other.advice_in_words())
    if found is None or cfg.teacher.check == "warn":
        keep(path, found)
    return found


def key_of(cfg: DictConfig, data: ClassificationData, teacher: Teacher, judged: Predictions) -> str:
    """A hash of all that a diagnosis follows from. The predictions stand for how the teacher is
    used now, and in which precision.
    """
    predicted = hashlib.sha256(judged.predicted.cpu().numpy().tobytes()).hexdigest()
    looks = {name: getattr(data, name, None) for name in LOOKS}
    net = OmegaConf.to_container(cfg.method.teacher, resolve=True)
    return shape_hash(__version__, teacher.sha256, data.fingerprint, looks, net, predicted)


def read_kept(path: Path) -> tuple[Finding | None] | None:
    """A kept result, in a tuple; None if it is damaged and must be made again."""
    try:
        content = json.loads(read_text(path))
        return (None if content is None else Finding(**content),)
    except (ValueError, TypeError):  # ``Damaged`` too
        return None


def keep(path: Path, found: Finding | None) -> None:
    """Keeps a result, unless the store may only be read: then it is made again next time."""
    text = json_text(None if found is None else dataclasses.asdict(found))
    with suppress(OSError, UserError):
        make_directory(path.parent, "teacher.store=… or outputs")
        with FileLock(path.parent / ".lock"):  # jobs of a sweep may start together
            write_kept(path.parent, {path.name: text})
