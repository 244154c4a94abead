"""The constructor is the schema: keys and values are checked against what their targets take.

Before anything is built, so that a wrong word is one sentence, and not an error from the middle of
a library or after an hour of training.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, Unpack, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from kd_lightning.base.errors import UserError, unknown

# What stands in the configuration without a target of its own.
PLAIN = {
    "seed": int,
    "outputs": str,
    "title": str | None,
    "run_dir": str | None,
    "resume": str | None,
    "baselines": Literal["labels_only"] | None,
    "threads": int | None,
    "evaluation.temperature_scaling": bool,
    "evaluation.plots": bool,
    "evaluation.soups": bool,
    "dropout.head": float,
    "dropout.blocks": float,
    "teacher.source": str,
    "teacher.seed": int,
    "teacher.store": str,
    "teacher.other_data": bool,
    "teacher.batch_size": int,
    "teacher.cache": int | None,
    "teacher.cache_top_k": int | None,
    "teacher.cache_store": str,
    "hardware.accelerator": str,
    "hardware.devices": int | list[int],
    "hardware.num_nodes": int,
    "hardware.precision": str | int,
    "hardware.channels_last": bool,
    "hardware.teacher_precision": Literal["best", "bf16", 16, 32] | None,
    "hardware.compile_teacher": bool,
    "hardware.compile": bool,
    "hardware.cuda_graphs": bool,
}
SECTIONS = (
    *("task", "evaluation", "dropout", "teacher", "teacher.trainer", "teacher.method"),
    *("trainer", "hardware"),
    *("callbacks", "logger"),
    *("data", "method", "method.students", "optimizer", "scheduler"),
)
# Arguments of Lightning's Trainer that follow from hardware/, callbacks/, logger/ and the record.
NOT_OF_TRAINER = {
    *("accelerator", "devices", "num_nodes", "precision", "strategy", "logger", "callbacks"),
    *("default_root_dir", "use_distributed_sampler", "num_sanity_val_steps"),
    *("enable_checkpointing", "enable_progress_bar", "enable_model_summary"),
}
WORDS = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


class Argument(NamedTuple):
    """The type that an argument states, and whether it must be given."""

    type: Any
    required: bool


class Arguments(NamedTuple):
    """What a callable takes by keyword; ``others``: it takes any other keyword too."""

    known: dict[str, Argument]
    others: bool


def check_configuration(cfg: DictConfig) -> None:
    """Checks every key and value that a person can set.

    A value that is an interpolation is not checked: it is another key's, and checked there.

    Raises:
        UserError: a key that nothing takes, a value of another kind than its argument's, an
            interpolation that leads nowhere, or a value that must be given and is not.
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
        said = str(error).splitlines()[0]
        raise UserError(f"{error.full_key} needs a value: {said} ({error.full_key}=…)") from None
    for key, kind in PLAIN.items():
        section, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, section) if section else cfg
        if name not in node:
            raise UserError(f"{key} must be given, got nothing ({key}=…)")
        check_value(node, name, kind, key)
    known = arguments_of(Trainer).known
    takes = Arguments({name: known[name] for name in known if name not in NOT_OF_TRAINER}, False)
    for section in ("trainer", "teacher.trainer"):
        check_arguments(OmegaConf.select(cfg, section), takes, section)
    check_targets(cfg, "")


def check_section(cfg: DictConfig, key: str) -> None:
    section = OmegaConf.select(cfg, key)
    if not OmegaConf.is_dict(section):
        how = "method@teacher.method=…" if key == "teacher.method" else f"{key}.<key>=…"
        raise UserError(f"{key} must be keys and values, got {shown(section)} ({how})")


def check_keys(cfg: DictConfig) -> None:
    """Checks the keys where no target says which there are; ``_name`` is a person's own, to refer
    to by ``${_name}``.
    """
    stated = [*PLAIN, *SECTIONS]
    for section in ("", "evaluation", "dropout", "teacher", "hardware"):
        prefix = f"{section}." if section else ""
        known = {key.removeprefix(prefix).split(".")[0] for key in stated if key.startswith(prefix)}
        if section == "teacher":
            known |= {"optimizer", "scheduler", "method"}
        for name in OmegaConf.select(cfg, section) if section else cfg:
            if name not in known and not name.startswith("_"):
                full = f"{prefix}{name}"
                raise unknown("key", full, [f"{prefix}{other}" for other in known], full)


def check_targets(node: Any, key: str) -> None:
    """Checks all that has a ``_target_`` in ``node``, at any depth."""
    if OmegaConf.is_dict(node) and "_target_" in node:
        check_arguments(node, arguments_of(target_of(node, key)), key)
    if not OmegaConf.is_config(node):
        return
    for name in node if OmegaConf.is_dict(node) else range(len(node)):
        if not OmegaConf.is_interpolation(node, name):
            below = f".{name}" if OmegaConf.is_dict(node) else f"[{name}]"
            check_targets(node[name], f"{key}{below}".removeprefix("."))


def target_of(node: DictConfig, key: str) -> Callable:
    """The class or function that ``node`` names."""
    try:
        return get_object(node._target_)
    except Exception as error:  # the import of a module of a person's own may raise anything
        raise UserError(
            f"{key}._target_ must be a class or a function that can be imported, got "
            f"{node._target_}: {' '.join(str(error).split())}"
        ) from error


def check_arguments(node: DictConfig, takes: Arguments, key: str) -> None:
    """Checks the keys of one node, and their values."""
    for name in node:
        full = f"{key}.{name}"
        if name in takes.known:
            check_value(node, name, takes.known[name].type, full)
        elif not takes.others and not name.startswith("_"):  # those are Hydra's own
            raise unknown("key", full, [f"{key}.{other}" for other in takes.known], full)


def check_value(node: DictConfig, name: str, kind: Any, key: str) -> None:
    if OmegaConf.is_interpolation(node, name) or fits(node[name], kind):
        return
    expected = in_words(kind) or f"a choice ({name}@{key}=…)"
    raise UserError(f"{key} must be {expected}, got {shown(node[name])}")


def shown(value: Any) -> str:
    return "null" if value is None else str(value)


def fits(value: Any, kind: Any) -> bool:
    """Whether a configuration's value is what an annotation says; one that says nothing fits."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if OmegaConf.is_dict(value) and "_target_" in value:
        return True  # what its own target makes of it
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin in (None, NoneType):
        return value is None
    if origin in (Any, object, inspect.Parameter.empty) or not isinstance(origin, type):
        return True
    if issubclass(origin, int | float):
        is_bool = isinstance(value, bool)
        return is_bool if origin is bool else isinstance(value, int | origin) and not is_bool
    if issubclass(origin, str | PathLike):
        return isinstance(value, str)
    if issubclass(origin, Mapping):
        return OmegaConf.is_dict(value) and all(
            fits(v, *inner[1:] or [Any]) for v in value.values()
        )
    if issubclass(origin, Sequence):
        return OmegaConf.is_list(value) and fits_each(list(value), inner)
    return False


def fits_each(values: list[Any], kinds: Sequence[Any]) -> bool:
    """``fits`` for a list[int], a tuple[int, ...] or a tuple[int, str]."""
    if len(kinds) < 2 or kinds[-1] is Ellipsis:
        kinds = [*kinds, Any][:1] * len(values)
    return len(values) == len(kinds) and all(map(fits, values, kinds))


def in_words(kind: Any) -> str:
    """What an annotation asks for; "" where no value of a configuration would do."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        words = dict.fromkeys(map(in_words, inner))
        if WORDS[float] in words:
            words.pop(WORDS[int], None)
        return " or ".join(filter(None, words))
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in WORDS:
        return WORDS[origin]
    if issubclass(origin, str | PathLike):
        return "text"
    if issubclass(origin, Mapping):
        return "keys and values" + (f", each {in_words(inner[1])}" if inner else "")
    if issubclass(origin, Sequence):
        return "a list" + (f", each {in_words(inner[0])}" if inner else "")
    return ""


def arguments_of(target: Callable) -> Arguments:
    """What ``target`` takes. A class of ours hands its ``**keywords`` on to its base, so it takes
    what that takes; what another class does with them is not known.
    """
    functions = [target]
    if inspect.isclass(target):
        classes = [cls for cls in target.__mro__ if "__init__" in vars(cls) and cls is not object]
        functions = [cls.__init__ for cls in classes]
        if not functions:
            return Arguments({}, False)
    known: dict[str, Argument] = {}
    for function in functions:
        found, hands_on = own_arguments(function)
        known = found | known
        if not hands_on:
            return Arguments(known, False)
        if not function.__module__.startswith("kd_lightning."):
            break
    return Arguments(known, True)


def own_arguments(function: Callable) -> tuple[dict[str, Argument], bool]:
    """A function's arguments, and whether it takes ``**keywords`` that it does not name."""
    found, hands_on = {}, False
    for parameter in signature_of(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(parameter.annotation) is Unpack:
            (typed,) = get_args(parameter.annotation)
            for name, kind in get_type_hints(typed).items():
                found[name] = Argument(kind, name in typed.__required_keys__)
        elif parameter.kind is parameter.VAR_KEYWORD:
            hands_on = True
        elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name != "self":
            required = parameter.default is parameter.empty
            found[parameter.name] = Argument(parameter.annotation, required)
    return found, hands_on


def signature_of(function: Callable) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that is there for type checkers alone
        return inspect.signature(function)
