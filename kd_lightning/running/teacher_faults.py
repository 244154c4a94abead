"""What is wrong with a teacher that was checked, as one sentence that says what to change."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import write_json
from kd_lightning.base.words import percent
from kd_lightning.data.classification import ClassificationData
from kd_lightning.records.run_directory import make_directory
from kd_lightning.running.kept_diagnosis import find_better_use
from kd_lightning.running.teacher_diagnosis import Place
from kd_lightning.teachers.class_order import corrected
from kd_lightning.teachers.other_runs import run_and_student
from kd_lightning.teachers.permuted_classes import find_class_order
from kd_lightning.teachers.significance import BETTER_BY, Predictions
from kd_lightning.teachers.sources import Teacher

SHOWN_CLASSES = 30  # the order of more classes is written to a file
# What a teacher near chance may be wrong in -> the keys to look at.
CAUSES = {
    "its normalization": ("method.teacher.mean", "method.teacher.std"),
    "the size of its images": ("method.teacher.input_size", "data.image_size"),
    "how files are resized": ("data.resize",),
    "the order of its classes": ("teacher.class_order",),
    "weights that were not loaded": ("teacher.source",),
}
CAUSES_IF_TRAINED = {"too little training": ("teacher.trainer.max_epochs", "teacher.optimizer.lr")}
CAUSES_IF_OF_A_RUN = {"that run, or other data than it had": ("teacher.source", "data")}
CAUSES_BY_KIND = {
    "train": CAUSES_IF_TRAINED,
    "run": CAUSES_IF_OF_A_RUN,
    "several": {"each of them by itself": ("teacher.source",)},
}


def fault_of(
    cfg: DictConfig,
    data: ClassificationData,
    teacher: Teacher,
    place: Place,
    checked: Sequence[Predictions],
) -> str | None:
    """A sentence; None if nothing is wrong.

    A teacher from a file is used with other settings too, if these can make it clearly better. One
    that this framework has trained was trained with its settings.

    Args:
        checked: the teacher's predictions; the last ones decide whether it is near chance.
    """
    if any(predictions.are_probabilities for predictions in checked):
        return (
            "the teacher's outputs are probabilities (at least 0, and 1 in sum), where logits are "
            "expected: leave out the softmax at its end (model@method.teacher=…)"
        )
    judged, source = checked[-1], kind_of(cfg.teacher.source)
    reason = doubt(checked, cfg.teacher.expect_accuracy)
    can_be_better = judged.accuracy <= 1 - BETTER_BY
    if (source == "file" and can_be_better) or (source == "pretrained" and reason is not None):
        better = better_use(cfg, data, teacher, place, judged)
        if better is not None:
            return f"the teacher's accuracy is {judged.in_words()}, but {better}"
    return None if reason is None else f"{reason}: look at {causes(cfg, source)}"


def doubt(checked: Sequence[Predictions], expected: float | None) -> str | None:
    """Why the accuracy is too low; None if it is not.

    Args:
        expected: accuracy that the teacher must have on the first part; None: no number.
    """
    whole, judged = checked[0], checked[-1]
    if judged.is_near_chance:
        return (
            f"the teacher's accuracy is {judged.in_words()}, not significantly above the share of "
            f"the most frequent class, {percent(judged.most_frequent_class, 1)}"
        )
    if judged.is_like_a_random_order:
        return (
            f"the teacher's accuracy is {judged.in_words()}, hardly better than that of its "
            f"outputs in a random order of the classes (p = {judged.order_p_value:.2f})"
        )
    if expected is not None and whole.accuracy < expected:
        return (
            f"the teacher's accuracy is {whole.in_words()}, less than "
            f"teacher.expect_accuracy={expected}"
        )
    return None


def kind_of(source: str | Sequence[str]) -> str:
    """Where a teacher comes from: "train", "pretrained", "run", "file" or, if there are several,
    "several".
    """
    if not isinstance(source, str):
        return "several"
    if source in ("train", "pretrained"):
        return source
    return "run" if run_and_student(Path(source).expanduser()) else "file"


def causes(cfg: DictConfig, source: str) -> str:
    """What to look at, with those of the keys that this run has."""
    possible = CAUSES_BY_KIND.get(source, CAUSES)
    named = []
    for cause, keys in possible.items():
        if present := [key for key in keys if has_key(cfg, key)]:
            named.append(f"{cause} ({', '.join(present)})")
    return " or ".join(filter(None, (", ".join(named[:-1]), named[-1])))


def has_key(cfg: DictConfig, key: str) -> bool:
    section, _, name = key.rpartition(".")
    return name in (OmegaConf.select(cfg, section) if section else cfg)


def better_use(
    cfg: DictConfig,
    data: ClassificationData,
    teacher: Teacher,
    place: Place,
    judged: Predictions,
) -> str | None:
    """With which settings the teacher is clearly better, and how to get them; None: with none."""
    other = find_better_use(cfg, data, teacher, place, judged)
    order = find_class_order(judged.predicted, judged.labels, data.num_classes)
    if order is not None and (other is None or order.accuracy > other.accuracy):
        return (
            f"{percent(order.accuracy, 1)} on {len(order.right)} of them with its classes in "
            f"another order: {class_order_advice(cfg, data, teacher, order.order)}"
        )
    if other is None:
        return None
    return f"{percent(other.accuracy, 1)} on {other.samples} of them {other.words}: {other.advice}"


def class_order_advice(
    cfg: DictConfig, data: ClassificationData, teacher: Teacher, order: list[int]
) -> str:
    """How the teacher gets this order: an override, if there is one.

    Args:
        order: for each output of the teacher, as the run uses it, the index of a class.
    """
    if teacher.class_order is None:
        return "look at the names of the data's classes, by which its outputs were chosen"
    override = class_order_override(cfg, data, teacher, order)
    if cfg.teacher.source == "pretrained":
        return f"give its weights as a file, with teacher.source=<file> {override}"
    return f"add {override}, after a look at the class names that it was trained with"


def class_order_override(
    cfg: DictConfig, data: ClassificationData, teacher: Teacher, order: list[int]
) -> str:
    """The override for all outputs in the teacher's file. An order of many classes, or with
    classes that the data do not have, is written to a JSON file.
    """
    classes = list(data.class_names)
    names = corrected(teacher.class_order, classes, order)
    has_others = len(names) > len(classes)
    if not has_others and len(names) <= SHOWN_CLASSES:
        return f"teacher.class_order=[{','.join(str(classes.index(name)) for name in names)}]"
    outputs = Path(cfg.outputs)
    make_directory(outputs, "outputs")
    path = outputs / f"class_order-{teacher.sha256}.json"
    try:
        write_json(path, names if has_others else [classes.index(name) for name in names])
    except UserError:
        if not path.exists():  # else another job of a sweep has just written the same
            raise
    return f"teacher.class_order={path}"
