"""Refuses keys of nets, of teachers and of their files that would have no effect."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.override_words import changed_key
from kd_lightning.teachers.other_runs import run_and_student
from kd_lightning.teachers.own_run import NO_PATHS, sources_of, trains_teacher

NO_FILES = ("none", "pretrained")  # values of a net's ``weights``
TEACHER = "method.teacher"
RATES = (f"{TEACHER}.dropout", f"{TEACHER}.block_dropout")  # all that a teacher from a run takes


def words_without_effect(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """The overrides of a teacher, if the method has no teacher; those of how it learns, if this run
    does not train it; those of its net, if that comes from another run.
    """
    idle = ("teacher.", TEACHER)
    if "teacher" in cfg.method:
        idle = () if trains_teacher(cfg) else ("teacher.method",)
    return [
        word
        for word in overrides
        if changed_key(word).startswith(idle) or is_of_a_runs_net(word, cfg)
    ]


def is_of_a_runs_net(word: str, cfg: DictConfig) -> bool:
    """Whether an override changes the teacher's net, which comes from another run as it is there,
    but for its rates of dropout.
    """
    key = changed_key(word)
    if "teacher" not in cfg.method or not key.startswith(f"{TEACHER}.") or key in RATES:
        return False
    sources = [str(source) for source in sources_of(cfg)]
    return not {*sources} & {*NO_PATHS} and all(
        run_and_student(Path(source).expanduser()) is not None for source in sources
    )


def check_overrides(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raises ``UserError`` for an override of a teacher that has no effect."""
    if idle := words_without_effect(cfg, overrides):
        if is_of_a_runs_net(idle[0], cfg):
            raise UserError(
                f"{idle[0]} has no effect: teacher.source={cfg.teacher.source} is a run, whose net "
                f"is taken as it is there, but for {' and '.join(RATES)} (leave one of the two out)"
            )
        if "teacher" in cfg.method:
            raise UserError(
                f"{idle[0]} has no effect: teacher.source={cfg.teacher.source} is a teacher that "
                "is already trained (leave one of the two out)"
            )
        method = cfg.method._target_.split(".")[-2]
        raise UserError(f"{idle[0]} has no effect: method={method} has no teacher")


def check_file_keys(cfg: DictConfig, source: str, *, is_file: bool) -> None:
    """Raises ``UserError`` for keys that say something about another file than the teacher's.

    Args:
        source: ``teacher.source``.
        is_file: whether it is a file of weights, or a folder with one.
    """
    for key in ("weights_key", "class_order"):
        if cfg.teacher[key] is not None and not is_file:
            raise UserError(
                f"teacher.{key} is for a file of weights, and teacher.source={source} is none: "
                f"leave it out, or set teacher.source=<file>"
            )
    weights = cfg.method.teacher.get("weights", "none")
    if source not in ("train", "untrained") and weights not in NO_FILES:
        raise UserError(
            f"{TEACHER}.weights={weights} has no effect with teacher.source={source}, which gives "
            "the teacher's weights: leave one of the two out"
        )


def check_weights_keys(config: DictConfig, key: str) -> None:
    """Raises ``UserError`` for keys of a net that are for a file of weights, if it has none.

    Args:
        key: of the net.
    """
    weights = config.get("weights", "none")
    if weights in NO_FILES and config.get("weights_key") is not None:
        of_source = " (teacher.weights_key=… is for a file in teacher.source)"
        raise UserError(
            f"{key}.weights_key={config.weights_key} has no effect with {key}.weights={weights}: "
            f"give a file of weights there, or leave it out{of_source * (key == TEACHER)}"
        )
    if weights == "none" and config.get("require_head"):
        raise UserError(
            f"{key}.require_head=true has no effect with {key}.weights=none: give trained weights "
            "there, or leave it out"
        )


def check_interpolation(net: nn.Module, interpolation: str | None, key: str) -> None:
    """Raises ``UserError`` if a net that resizes nothing was given an interpolation.

    Args:
        interpolation: that of the configuration.
        key: of the net.
    """
    resizes = getattr(getattr(net, "prepare", None), "size", None) is not None
    if interpolation is not None and not resizes:
        raise UserError(
            f"{key}.interpolation={interpolation} has no effect without {key}.input_size, to which "
            "images are resized: set that too, or leave it out"
        )
