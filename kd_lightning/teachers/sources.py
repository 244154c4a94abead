"""Finds the teacher that a run needs, or trains it. A frozen teacher is never untrained."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.base.allowed import check_record, constructors_in
from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import seed_stream, stream_seed
from kd_lightning.base.weights_hash import sha256_of
from kd_lightning.data.classification import ClassificationData
from kd_lightning.models.assemble import select_rows
from kd_lightning.models.ensemble import Ensemble
from kd_lightning.models.weights import load_weights
from kd_lightning.records.run_directory import read_config
from kd_lightning.teachers.files import Found, with_timm_weights, with_weights_of
from kd_lightning.teachers.other_runs import check_same_data, run_and_student, the_student_of
from kd_lightning.teachers.store import find_or_train
from kd_lightning.teachers.unused_keys import check_file_keys

NO_FILES = ("train", "untrained", "pretrained")  # values of ``teacher.source``


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
    run = run_and_student(path)
    is_file = source not in NO_FILES and path.exists() and run is None
    check_file_keys(cfg, source, is_file=is_file)
    build = partial(build_net, seed=cfg.teacher.seed, key="teacher")
    if source == "train":
        name = f"teacher-{factory(config)}"
        own_run, store = teacher_run(cfg), Path(cfg.teacher.store)
        directory = find_or_train(own_run, store, name, data.fingerprint, train=train, say=say)
        net = load_student(directory, "student", allow=allowed_by(cfg))
        return Teacher(net, f"trained, {directory}", describe(config), classes)
    if source == "untrained":
        origin = "untrained at first, trained with the students"
        return Teacher(build(config), origin, describe(config), classes)
    if source == "pretrained":
        found = with_timm_weights(config, cfg, data, build)
        origin = "the library's weights, which have seen all of ImageNet-1k's training images"
        return of_file(found, origin, config)
    if run is not None:
        return teacher_of_a_run(*run, cfg, data)
    if not path.exists():
        raise UserError(
            f"there is no file or folder {source}: teacher.source must be train, pretrained, "
            "untrained, a file of weights or a folder with one, or a run directory"
        )
    found = with_weights_of(path, config, cfg, data, build)
    return of_file(found, str(path), config)


def of_file(found: Found, origin: str, config: DictConfig) -> Teacher:
    """The teacher whose weights were found in a file."""
    notes = tuple(found.notes)
    return Teacher(found.net, origin, describe(config), found.class_names, notes, found.class_order)


def sources_of(cfg: DictConfig) -> list[str]:
    """All that ``cfg.teacher.source`` names."""
    source = cfg.teacher.source
    return list(source) if OmegaConf.is_list(source) else [source]


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
    notes = (rows.note,) if rows.note else ()
    origin = f"{key} of {directory}"
    return Teacher(net, origin, describe(config), list(data.class_names), notes)


def teacher_run(cfg: DictConfig) -> DictConfig:
    """The ordinary run that trains the teacher of ``cfg`` by ``cfg.teacher.method``.

    Raises:
        UserError: that method needs a teacher itself, or the teacher would see other data.
    """
    if "teacher" in cfg.teacher.method:
        name = cfg.teacher.method._target_.split(".")[-2]
        raise UserError(
            f"teacher.method must be a method without a teacher, got {name}: choose another with "
            "method@teacher.method=…"
        )
    run = resolved(cfg)
    teacher, net = run.teacher, run.method.teacher
    # its own streams, or a student of the same net and seed would have the same initial weights
    run.seed = run.data.seed = stream_seed("teacher", teacher.seed) % 2**31
    run.data.batch_size = teacher.batch_size
    own = own_data(teacher.data, run.data)
    run.data.update(own)
    if "val_fraction" in own:  # fewer samples have another mean; the net keeps that of its run
        run.task.update(mean=None, std=None)
    run.optimizer, run.scheduler = teacher.optimizer, teacher.scheduler
    run.trainer = {"log_every_n_steps": run.trainer.log_every_n_steps, **teacher.trainer}
    run.title = f"teacher {describe(net)}"
    students, run.method = run.method.students, teacher.method
    name_branch_net(run.method, students)
    run.method.update(students={"student": net}, seed=run.seed)
    return one_device(run)


def own_data(changes: DictConfig | None, data: DictConfig) -> dict[str, Any]:
    """The settings of data that differ while the teacher trains. A teacher may have a val part of
    its own, a share of train, if its run has none.

    Args:
        data: the settings of its run.

    Raises:
        UserError: with one of them the teacher would see other samples than its run.
    """
    changes = dict(changes or {})
    for key in changes:
        if key == "val_fraction" and data.get(key) == 0:
            continue
        if key == "val_fraction":
            raise UserError(
                f"teacher.data.val_fraction needs data.val_fraction=0, got {data.get(key)}: a "
                "teacher with another val part would be trained on samples of this run's val"
            )
        if key not in TEACHERS_OWN:
            raise UserError(
                f"teacher.data takes {' and '.join(TEACHERS_OWN)}, got {key}: in all else the "
                f"teacher's data are those of its run (teacher.data.{key})"
            )
    return changes


def name_branch_net(method: DictConfig, students: DictConfig) -> None:
    """Gives a method whose branches have the architecture of another net, and that names none, that
    of the first student.
    """
    if "branch_net" in method and method.branch_net is None:
        method.branch_net = next(iter(students.values()))


def branch_factory(config: DictConfig) -> Callable[[], nn.Module]:
    """Makes the net that ``config`` names, with random weights, each time that it is called."""
    config = config.copy()
    if "weights" in config:
        config.weights = "none"
    return partial(instantiate, config, _convert_="object")


def resolved(cfg: DictConfig) -> DictConfig:
    """A copy of ``cfg`` without references: in a run made from it, the values of ``${seed}`` or
    ``${optimizer.lr}`` stay those of ``cfg``.
    """
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))


def one_device(run: DictConfig) -> DictConfig:
    """The run on one device, without callbacks that could stop or change it."""
    devices = run.hardware.devices
    run.hardware.update(devices=devices[:1] if OmegaConf.is_list(devices) else 1, num_nodes=1)
    run.callbacks = {key: node for key, node in run.callbacks.items() if key == "progress"}
    # its nets are tested in this run too
    run.evaluation.update(temperature_scaling=False, plots=False, soups=False, adversarial=None)
    run.teacher.update(cache=None, cache_top_k=None)  # it is not distilled
    if run.data.get("unlabeled") is not None:
        run.data.update(unlabeled=None, unlabeled_ratio=1.0, unlabeled_options=None)
    run.update(logger={}, run_dir=None, resume=None, baselines=None)
    return run


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
    load_weights(net, directory / f"best-{key}.ckpt", "teacher.source")
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


# Settings of data that may differ while the teacher trains.
TEACHERS_OWN = ("augmentation", "mixing")
# Arguments that say nothing about the architecture.
COMMON = frozenset(
    (
        *("num_classes", "in_chans", "num_inputs", "weights", "weights_key"),
        *("dropout", "block_dropout", "mean", "std", "input_size", "interpolation"),
    )
)


def describe(config: DictConfig) -> str:
    """A net's name for people: timm's, or that of its factory with its sizes."""
    if "name" in config:
        return factory(config)
    shape = [value for key, value in config.items() if key not in COMMON and key[0] != "_"]
    shown = ", ".join(str(value) for value in shape if value is not None)
    return f"{factory(config)}({shown})"


def factory(config: DictConfig) -> str:
    """timm's name of a net, or that of the function that makes it."""
    if "name" in config:
        return str(config.name).split(".")[0]  # without the tag of its weights
    return str(config._target_).rsplit(".", 1)[-1]
