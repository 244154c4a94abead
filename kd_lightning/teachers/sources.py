"""Finds the teacher that a run needs, or trains it. A frozen teacher is never untrained."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.base.allowed import check_record, constructors_in
from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import seed_stream
from kd_lightning.base.weights_hash import sha256_of
from kd_lightning.data.classification import ClassificationData
from kd_lightning.models.assemble import select_rows
from kd_lightning.models.checkpoint_facts import Facts
from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.models.ensemble import Ensemble
from kd_lightning.models.weights import load_weights
from kd_lightning.records.run_directory import read_config
from kd_lightning.teachers.files import Found, with_timm_weights, with_weights_of
from kd_lightning.teachers.input_facts import differences
from kd_lightning.teachers.net_names import describe, factory
from kd_lightning.teachers.other_runs import check_same_data, run_and_student, the_student_of
from kd_lightning.teachers.own_run import NO_PATHS, sources_of, teacher_run
from kd_lightning.teachers.store import find_or_train
from kd_lightning.teachers.unused_keys import check_file_keys


@dataclass(frozen=True)
class Teacher:
    """A trained net.

    Attributes:
        origin: where its weights come from, in words.
        name: of the net, for people.
        class_names: of its outputs; None: they are only assumed to be the data's.
        notes: sentences of what a person should know about how it was loaded.
        class_order: names of the classes of all outputs in its file, by which those of the data
            were chosen; None: ``teacher.class_order`` cannot change this choice.
    """

    net: nn.Module
    origin: str
    name: str
    class_names: list[str] | None = None
    notes: tuple[str, ...] = ()
    class_order: list[str] | None = None

    @property
    def sha256(self) -> str:
        """16 hex digits of its weights."""
        return sha256_of(self.net)


def build_net(config: DictConfig, seed: int, key: str) -> nn.Module:
    """The net that ``config`` names; its initial weights follow from (seed, key) alone."""
    seed_stream(seed, "initial weights", key)
    return instantiate(config, _convert_="object")


def get_teacher(
    cfg: DictConfig,
    data: ClassificationData,
    *,
    train: Callable[[DictConfig], Any],
    say: Callable[[str], None],
) -> Teacher:
    """The teacher that ``cfg.teacher.source`` names, trained first if it must be.

    Raises:
        UserError: the source does not exist, cannot be read, or has other classes than the data.
    """
    teacher = find_teacher(cfg, data, train=train, say=say)
    for note in teacher.notes:
        say(note)
    return teacher


def find_teacher(
    cfg: DictConfig,
    data: ClassificationData,
    *,
    train: Callable[[DictConfig], Any],
    say: Callable[[str], None],
) -> Teacher:
    """``get_teacher`` without saying the notes."""
    if OmegaConf.is_list(cfg.teacher.source):
        return together([find_teacher(c, data, train=train, say=say) for c in one_by_one(cfg)])
    source, config = str(cfg.teacher.source), deepcopy(cfg.method.teacher)
    classes = list(data.class_names)
    path = Path(source).expanduser()
    run = None if source in NO_PATHS else run_and_student(path)
    if source not in NO_PATHS and run is None and not path.exists():
        raise UserError(
            f"there is no file or folder {source}: teacher.source must be train, pretrained, "
            "untrained, a file of weights or a folder with one, or a run directory"
        )
    is_file = source not in NO_PATHS and run is None
    check_file_keys(cfg, source, is_file=is_file)
    build = partial(build_net, seed=cfg.teacher.seed, key="teacher")
    if source == "train":
        name = f"teacher-{factory(config)}"
        own_run, store = teacher_run(cfg), Path(cfg.teacher.store)
        directory = find_or_train(own_run, store, name, data.fingerprint, train=train, say=say)
        net = load_student(directory, "student", allow=allowed_by(cfg))
        notes = notes_on_training(cfg)
        return Teacher(net, f"trained, {directory}", describe(config), classes, notes)
    if source == "untrained":
        origin = "untrained at first, trained with the students"
        return Teacher(build(config), origin, describe(config), classes)
    if source == "pretrained":
        found = with_timm_weights(config, cfg, data, build)
        origin = "the library's weights, which have seen all of ImageNet-1k's training images"
        return of_file(found, origin, config)
    if run is not None:
        return teacher_of_a_run(*run, cfg, data)
    found = with_weights_of(path, config, cfg, data, build)
    return of_file(found, str(path), config)


def notes_on_training(cfg: DictConfig) -> tuple[str, ...]:
    """What a person should know about the method by which this run trains its teacher."""
    wanted = getattr(get_object(cfg.method._target_), "teacher_method", None)
    method, used = (name._target_.split(".")[-2] for name in (cfg.method, cfg.teacher.method))
    if wanted in (None, used):
        return ()
    return (
        f"Warning: method={method} needs a teacher that was trained by {wanted}, and this one was "
        f"trained by {used} (method@teacher.method={wanted})",
    )


def of_file(found: Found, origin: str, config: DictConfig) -> Teacher:
    """The teacher whose weights were found in a file."""
    notes = tuple(found.notes)
    return Teacher(found.net, origin, describe(config), found.class_names, notes, found.class_order)


def one_by_one(cfg: DictConfig) -> list[DictConfig]:
    """The configuration of each of several teachers.

    Raises:
        UserError: a teacher is named twice, or none is.
    """
    sources = sources_of(cfg)
    if len(set(sources)) < max(1, len(sources)):
        raise UserError(
            "teacher.source must be one teacher or a list of different ones, got "
            f"[{','.join(sources)}]"
        )
    copies = [cfg.copy() for _ in sources]
    for copied, source in zip(copies, sources, strict=True):
        copied.teacher.source = source
    return copies


def together(teachers: Sequence[Teacher]) -> Teacher:
    """One teacher that answers with the mean of the teachers' probabilities."""
    names = ", ".join(dict.fromkeys(teacher.name for teacher in teachers))
    knows_names = all(teacher.class_names is not None for teacher in teachers)
    return Teacher(
        Ensemble([teacher.net for teacher in teachers]),
        f"the mean of {' and '.join(teacher.origin for teacher in teachers)}",
        f"{len(teachers)} x {names}",
        teachers[0].class_names if knows_names else None,
        tuple(note for teacher in teachers for note in teacher.notes),
    )


def teacher_of_a_run(
    directory: Path, key: str | None, cfg: DictConfig, data: ClassificationData
) -> Teacher:
    """A student of another run, with the dropout rates of this run's teacher.

    Args:
        key: of the student; None: the best one.
    """
    best = the_student_of(directory)
    key = key or best
    rows = check_same_data(directory, cfg, data)
    config = student_config(directory, key, allowed_by(cfg))
    ours = cfg.method.teacher
    rates = {k: ours[k] for k in ("dropout", "block_dropout") if k in config and k in ours}
    config.update(rates)
    net = load_student(directory, key, rates, allowed_by(cfg))
    if rows.rows is not None:
        select_rows(net.head, rows.rows)
    of_samples = OmegaConf.to_container(read_config(directory)).get("data") or {}
    other = differences(Facts(of_samples=of_samples), data, str(directory))
    notes = tuple(note for note in (rows.note, other) if note)
    origin = f"{key} of {directory}"
    return Teacher(net, origin, describe(config), list(data.class_names), notes)


def load_student(
    directory: Path,
    key: str,
    rates: Mapping[str, float] | None = None,
    allow: Sequence[str] = (),
) -> nn.Module:
    """A finished run's student with the weights that were chosen on val.

    Args:
        rates: of dropout, to replace those of the run.
        allow: see ``student_config``.
    """
    config = student_config(directory, key, allow)
    config.update(rates or {})
    if "weights" in config:
        config.weights = "none"  # the checkpoint holds them all
    net = build_net(config, 0, key)
    facts = load_weights(net, directory / f"best-{key}.ckpt", "teacher.source").facts
    prepare = net.prepare if isinstance(net, Classifier) else None
    if facts.mean is None and isinstance(prepare, Prepare):
        prepare.set_statistics(None, None)  # it began with weights that normalize nothing
    return net


def student_config(directory: Path, key: str, allow: Sequence[str] = ()) -> DictConfig:
    """The configuration of a run's student.

    Args:
        allow: packages, modules or functions that it may name, beside those of this package.

    Raises:
        UserError: it names another function.
    """
    config = OmegaConf.to_container(read_config(directory))["method"]["students"][key]
    check_record(config, directory / "config.yaml", allow, f"method.students.{key}")
    return OmegaConf.create(config)


def allowed_by(cfg: DictConfig) -> list[str]:
    """What the files of other runs may name in this run: what it allows, and what it names itself,
    such as its teacher's net, which another run has trained.
    """
    return [*cfg.allow, *constructors_in(cfg)]
