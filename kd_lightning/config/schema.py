"""Checks the configuration: each key and value against the arguments of its ``_target_``.

The signature of a constructor is the schema of its section. All is checked before anything is
built, so a mistake gives one sentence, and not an error inside a library after hours of training.
"""

import inspect
from collections.abc import Callable
from typing import (
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)

from hydra.utils import get_object
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from kd_lightning.base.allowed import check_own
from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import Count, Seed, ShareAboveZero, ShareBelowOne
from kd_lightning.config.paths import check_paths
from kd_lightning.config.trainer_options import NOT_FOR_RUNS, TRAINER_TYPES
from kd_lightning.config.values import as_text, check

Baseline = Literal["labels_only", "adversarial_training"]
# Keys that are no arguments of a ``_target_``, with the types of their values.
PLAIN = {
    "seed": Seed,
    "outputs": str,
    "title": str | None,
    "run_dir": str | None,
    "resume": str | None,
    "allow": list[str],
    "baselines": Baseline | list[Baseline] | None,
    "threads": Count | None,
    "evaluation.temperature_scaling": bool,
    "evaluation.plots": bool,
    "evaluation.soups": bool,
    "evaluation.adversarial": ShareAboveZero | None,
    "evaluation.adversarial_steps": Count,
    "evaluation.adversarial_samples": Count,
    "dropout.head": ShareBelowOne,
    "dropout.blocks": ShareBelowOne,
    "teacher.source": str | list[str],
    "teacher.weights_key": str | None,
    "teacher.class_order": str | list[str | int] | None,
    "teacher.seed": Seed,
    "teacher.store": str,
    "teacher.other_data": bool,
    "teacher.check": Literal["error", "warn", "off", False],
    "teacher.expect_accuracy": float | None,
    "teacher.batch_size": Count,
    "teacher.data": dict[str, Any] | None,
    "teacher.cache": Count | None,
    "teacher.cache_top_k": Count | None,
    "teacher.cache_store": str,
    "hardware.accelerator": str,
    "hardware.devices": int | list[int],
    "hardware.num_nodes": Count,
    "hardware.precision": str | int,
    "hardware.deterministic": bool,
    "hardware.channels_last": bool,
    "hardware.teacher_precision": Literal["best", "bf16", 16, 32] | None,
    "hardware.compile_teacher": bool,
    "hardware.compile": bool | Literal["auto", "trial"],
    "hardware.cuda_graphs": bool,
}
# Keys whose values are keys and values.
SECTIONS = (
    *("task", "evaluation", "dropout", "trainer", "hardware"),
    *("teacher", "teacher.trainer", "teacher.method", "teacher.optimizer", "teacher.scheduler"),
    *("callbacks", "logger"),
    *("data", "method", "method.students", "optimizer", "scheduler"),
)
# Arguments of Lightning's Trainer that the program sets: they depend on hardware, callbacks, logger
# and the run directory.
SET_BY_PROGRAM = {
    *("accelerator", "devices", "num_nodes", "precision", "deterministic", "strategy"),
    *("logger", "callbacks"),
    *("default_root_dir", "use_distributed_sampler", "num_sanity_val_steps"),
    *("enable_checkpointing", "enable_progress_bar", "enable_model_summary"),
}


class Argument(NamedTuple):
    """The annotation of an argument, and whether the argument has no default."""

    type: Any
    required: bool


class Arguments(NamedTuple):
    """The keyword arguments of a callable; ``others``: it accepts any other keyword too."""

    known: dict[str, Argument]
    others: bool


def check_configuration(cfg: DictConfig) -> None:
    """Checks every key and value that a user can set.

    An interpolation is not checked here: its value belongs to another key, and is checked there.

    Raises:
        UserError: an unknown key, a value of the wrong type, an interpolation that cannot be
            resolved, or a missing value.
    """
    for key in SECTIONS:
        check_section(cfg, key)
    check_keys(cfg)
    for name in cfg.method.students:
        check_section(cfg, f"method.students.{name}")
    if "teacher" in cfg.method:
        check_section(cfg, "method.teacher")
    try:
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(
            f"{error.full_key} must be given, got nothing ({error.full_key}=…)"
        ) from None
    except InterpolationResolutionError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{error.full_key} needs a value: {reason} ({error.full_key}=…)") from None
    for key, annotation in PLAIN.items():
        section, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, section) if section else cfg
        if name not in node:
            raise UserError(f"{key} must be given, got nothing ({key}=…)")
        check_value(node, name, annotation, key)
    for section in ("trainer", "teacher.trainer"):
        check_trainer(OmegaConf.select(cfg, section), section)
    check_targets(cfg, "")
    check_paths(cfg)


def check_trainer(section: DictConfig, key: str) -> None:
    """Checks the arguments of Lightning's Trainer that a person may set."""
    for name, instead in NOT_FOR_RUNS.items():
        if name in section:
            raise UserError(f"{key}.{name} is not for runs: {instead}")
    check_arguments(section, Arguments(trainer_arguments(), False), key)


def trainer_arguments() -> dict[str, Argument]:
    """Arguments of Lightning's Trainer that a person may set, with the ranges of numbers."""
    return {
        name: argument._replace(type=TRAINER_TYPES.get(name, argument.type))
        for name, argument in arguments_of(Trainer).known.items()
        if name not in SET_BY_PROGRAM
    }


def check_section(cfg: DictConfig, key: str) -> None:
    section = OmegaConf.select(cfg, key)
    if not OmegaConf.is_dict(section):
        group = key.removeprefix("teacher.")
        is_choice = group in ("method", "optimizer", "scheduler") and group != key
        how = f"{group}@{key}=…" if is_choice else f"{key}.<key>=…"
        raise UserError(f"{key} must be keys and values, got {as_text(section)} ({how})")


def check_keys(cfg: DictConfig) -> None:
    """Checks the keys of sections without a ``_target_``. A user may add keys like ``_name``, and
    refer to them as ``${_name}``.
    """
    listed = [*PLAIN, *SECTIONS]
    for section in ("", "evaluation", "dropout", "teacher", "hardware"):
        prefix = f"{section}." if section else ""
        known = {key.removeprefix(prefix).split(".")[0] for key in listed if key.startswith(prefix)}
        for name in OmegaConf.select(cfg, section) if section else cfg:
            if name not in known and not name.startswith("_"):
                full = f"{prefix}{name}"
                raise unknown("key", full, [f"{prefix}{other}" for other in known], full)


def check_targets(node: Any, key: str) -> None:
    """Checks each node with a ``_target_`` in ``node``, at any depth."""
    if OmegaConf.is_dict(node) and "_target_" in node:
        check_arguments(node, arguments_of(target_of(node, key)), key)
    if not OmegaConf.is_config(node):
        return
    for name in node if OmegaConf.is_dict(node) else range(len(node)):
        if not OmegaConf.is_interpolation(node, name):
            suffix = f".{name}" if OmegaConf.is_dict(node) else f"[{name}]"
            check_targets(node[name], f"{key}{suffix}".removeprefix("."))


def target_of(node: DictConfig, key: str) -> Callable:
    """The class or function that ``node`` names."""
    check_own(str(node._target_), f"{key}._target_".removeprefix("."))
    try:
        return get_object(node._target_)
    except Exception as error:  # importing a user's module may raise any exception
        raise UserError(
            f"{key}._target_ must be a class or a function that can be imported, got "
            f"{node._target_}: {' '.join(str(error).split())}"
        ) from error


def check_arguments(node: DictConfig, arguments: Arguments, key: str) -> None:
    """Checks the keys of one node and their values."""
    for name in node:
        full = f"{key}.{name}"
        if name in arguments.known:
            check_value(node, name, arguments.known[name].type, full)
        elif not arguments.others and not name.startswith("_"):  # Hydra's keys start with _
            raise unknown("key", full, [f"{key}.{other}" for other in arguments.known], full)


def check_value(node: DictConfig, name: str, annotation: Any, key: str) -> None:
    if not OmegaConf.is_interpolation(node, name):
        check(node[name], annotation, key, otherwise=f"a choice ({name}@{key}=…)")


def arguments_of(target: Callable) -> Arguments:
    """The arguments of ``target``. A class of this package passes its ``**keywords`` to its base
    class, so the base's arguments count too. What other classes do with them is not known.
    """
    functions = [target]
    if inspect.isclass(target):
        classes = [cls for cls in target.__mro__ if "__init__" in vars(cls) and cls is not object]
        functions = [cls.__init__ for cls in classes]
        if not functions:
            return Arguments({}, False)
    known: dict[str, Argument] = {}
    for function in functions:
        own, has_keywords = own_arguments(function)
        known = own | known
        if not has_keywords:
            return Arguments(known, False)
        if not function.__module__.startswith("kd_lightning."):
            break
    return Arguments(known, True)


def own_arguments(function: Callable) -> tuple[dict[str, Argument], bool]:
    """A function's arguments, and whether it accepts ``**keywords`` of any other name."""
    arguments, has_keywords = {}, False
    for parameter in signature_of(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(parameter.annotation) is Unpack:
            (typed,) = get_args(parameter.annotation)
            for name, annotation in get_type_hints(typed, include_extras=True).items():
                if get_origin(annotation) in (Required, NotRequired):
                    (annotation,) = get_args(annotation)
                arguments[name] = Argument(annotation, name in typed.__required_keys__)
        elif parameter.kind is parameter.VAR_KEYWORD:
            has_keywords = True
        elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name != "self":
            required = parameter.default is parameter.empty
            arguments[parameter.name] = Argument(parameter.annotation, required)
    return arguments, has_keywords


def signature_of(function: Callable) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that only type checkers can read
        return inspect.signature(function)
