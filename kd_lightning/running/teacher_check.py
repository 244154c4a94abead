"""Checks a teacher on val before a student trains: one sentence, a record, or one error.

The run stops if the teacher is near chance, below ``teacher.expect_accuracy``, or clearly better
with other settings (``teacher_faults.py``).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import read_json
from kd_lightning.base.ranks import is_first_rank
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.chosen import batches_of
from kd_lightning.data.loading.part_loaders import Part
from kd_lightning.models.modes import in_mode
from kd_lightning.running.teacher_diagnosis import Place
from kd_lightning.running.teacher_faults import fault_of
from kd_lightning.running.trainer import bare_trainer
from kd_lightning.teacher_cache.cache import some_of
from kd_lightning.teachers.significance import Predictions
from kd_lightning.teachers.sources import Teacher

MOST: Mapping[Part, int] = {"val": 5000, "train": 1000}  # samples of a part that are checked
FEW = 100  # a smaller val part says little, so train is checked too

Record = dict[str, dict[str, Any]]  # "val" and "train", if they were checked -> numbers


def check_expectation(cfg: DictConfig) -> None:
    """Raises ``UserError`` for a ``teacher.expect_accuracy`` that cannot be checked."""
    expected = cfg.teacher.expect_accuracy
    if expected is None:
        return
    if not 0 < expected <= 1:
        raise UserError(
            f"teacher.expect_accuracy must be in (0, 1], where 77 % is 0.77, got {expected}"
        )
    if not is_checked(cfg):
        raise UserError(
            f"teacher.expect_accuracy={expected} has no effect with teacher.check=off or "
            "teacher.source=untrained: remove it"
        )


def is_checked(cfg: DictConfig) -> bool:
    """Whether the run checks its teacher. YAML reads ``off`` without quotes as False."""
    return cfg.teacher.check in ("error", "warn") and cfg.teacher.source != "untrained"


def check_on_val(
    cfg: DictConfig,
    data: ClassificationData,
    teacher: Teacher | None,
    say: Callable[[str], None],
) -> Record | None:
    """Measures the teacher on val, on the run's device and in its precision. The first rank does
    this alone. A resumed run with the same teacher takes the record of its first start, also if it
    checks nothing itself.

    Val is checked whole up to 5,000 samples. If it has fewer than 100 or does not exist, up to
    1,000 training samples are checked too, without augmentation.

    Args:
        say: tells the person the accuracy, and with ``teacher.check=warn`` what is wrong.

    Returns:
        For ``environment.json``; None if nothing was checked.

    Raises:
        UserError: something is wrong with the teacher, and ``teacher.check`` is "error".
    """
    if teacher is None or not is_first_rank():
        return None
    if cfg.resume and (known := recorded(Path(cfg.resume), teacher)):
        return known
    if not is_checked(cfg):
        return None
    trainer = bare_trainer(cfg, logger=False, enable_checkpointing=False)
    place = Place(trainer.strategy.root_device, trainer.precision_plugin.forward_context)
    home = next(teacher.net.parameters()).device
    with in_mode(teacher.net, "eval"):
        checked = [measured(teacher, data, part, place) for part in parts_of(data)]
        say(sentence_of(checked, teacher))
        fault = fault_of(cfg, data, teacher, place, checked)
    teacher.net.to(home)
    if fault is not None and cfg.teacher.check == "error":
        raise UserError(f"{fault} (teacher.check=warn trains all the same)")
    if fault is not None:
        say(f"Warning: {fault}")
    return {predictions.part: predictions.record() for predictions in checked}


def recorded(directory: Path, teacher: Teacher) -> Record | None:
    """What the first start of a resumed run has recorded about the same teacher."""
    path = directory / "environment.json"
    was = read_json(path, "teacher")["teacher"] if path.exists() else {}
    if was.get("fingerprint") != teacher.sha256:
        return None
    return {part: was[part] for part in MOST if was.get(part) is not None}


def parts_of(data: ClassificationData) -> list[Part]:
    """The parts that are checked. The last one has enough samples for a test, if any has."""
    val = data.parts["val"]
    if val is None:
        return ["train"]
    return ["val"] if len(val) >= FEW else ["val", "train"]


def measured(teacher: Teacher, data: ClassificationData, part: Part, place: Place) -> Predictions:
    """The predictions of the teacher on a part, or on random samples of it if it has many.

    Raises:
        UserError: its outputs are not finite, so that no student can learn from them.
    """
    samples = data.parts[part]
    chosen = samples.subset(torch.tensor(some_of(len(samples), MOST[part])))
    found, labels = place.logits({"teacher": teacher.net}, batches_of(data, chosen))
    logits = found["teacher"]
    if bad := int((~logits.isfinite().all(-1)).sum()):
        raise UserError(
            f"the teacher's outputs are not finite for {bad} of {len(labels)} {part} samples, so "
            f"its weights ({teacher.origin}) are wrong: give it other weights (teacher.source=…), "
            "or set hardware.precision=32"
        )
    is_random = len(chosen) < len(samples)
    soft = are_probabilities(logits)
    return Predictions(part, chosen, logits.argmax(-1), labels, is_random, soft)


def are_probabilities(logits: Float[Tensor, "N C"]) -> bool:
    """Whether all outputs are at least 0 and those of each sample sum to 1, up to the rounding of
    bf16: those of a softmax. Real logits never are, for all samples.
    """
    return bool((logits >= 0).all() and ((logits.float().sum(-1) - 1).abs() < 0.02).all())


def sentence_of(checked: list[Predictions], teacher: Teacher) -> str:
    words = " and ".join(predictions.in_words() for predictions in checked)
    note = ", without augmentation, as there is no val part" if checked[0].part != "val" else ""
    return f"Teacher: {words}{note}, {teacher.origin}"
