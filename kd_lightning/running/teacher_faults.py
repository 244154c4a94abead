"""What is wrong with a teacher that was checked, as one sentence that says what to change."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.files import write_json
from kd_lightning.data.classification import ClassificationData
from kd_lightning.records.run_directory import make_directory
from kd_lightning.running.teacher_diagnosis import Place, diagnose
from kd_lightning.teachers.other_runs import run_and_student
from kd_lightning.teachers.permuted_classes import find_class_order
from kd_lightning.teachers.significance import BETTER_BY, Predictions, percent
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
            f"the most frequent class, {percent(judged.most_frequent_class)}"
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
    keys = cfg.method.teacher.keys()
    other = diagnose(teacher.net, data, judged.chosen, place, keys)
    order = find_class_order(judged.predicted, judged.labels, data.num_classes)
    if order is not None and (other is None or order.accuracy > other.accuracy):
        override = class_order_override(cfg, data, teacher, order.order)
        return (
            f"{percent(order.accuracy)} on {len(order.right)} of them with its classes in another "
            f"order: add {override}, after a look at the class names that it was trained with"
        )
    if other is None:
        return None
    return (
        f"{percent(other.accuracy)} on {len(other.right)} of them {other.alternative.words}: "
        f"{other.alternative.advice_in_words()}"
    )


def class_order_override(
    cfg: DictConfig, data: ClassificationData, teacher: Teacher, order: list[int]
) -> str:
    """The override that gives the teacher this order. An order of many classes is written to a
    JSON file.

    Args:
        order: for each output of the teacher, as the run uses it, the index of a class.
    """
    given = cfg.teacher.get("class_order")
    if isinstance(given, str):
        return f"another teacher.class_order than that in {given}"
    names = data.class_names
    if given is not None and not all(isinstance(one, int) or one in names for one in given):
        return "another teacher.class_order than this"
    if given is not None:  # it is for the outputs in the file, in whose order the answer must be
        places = [one if isinstance(one, int) else names.index(one) for one in given]
        order = [order[place] for place in places]
    if len(order) <= SHOWN_CLASSES:
        return f"teacher.class_order=[{','.join(map(str, order))}]"
    outputs = Path(cfg.outputs)
    make_directory(outputs, "outputs")
    path = outputs / f"class_order-{teacher.sha256}.json"
    write_json(path, order)
    return f"teacher.class_order={path}"
