"""Command lines that a person could type by mistake, as a strategy of Hypothesis.

A command line is a few choices of groups and up to three keys, each of any group, with a value that
is of the key's type, at the edge of its range, or of another kind altogether.
"""

import math
import random
from collections.abc import Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from hydra.utils import get_object
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from kd_lightning.config.command_line import CONF, compose
from kd_lightning.config.schema import PLAIN, arguments_of, trainer_arguments
from kd_lightning.config.values import matches, split_range

# Small made-up data, so that a run takes a second
SMALL = (
    *("data=synthetic", "data.num_train=48", "data.num_test=16", "data.batch_size=8"),
    *("trainer.max_epochs=1", "threads=1", "hardware=cpu", "callbacks=quiet", "logger=none"),
)
OF_TEACHER = ("teacher.trainer.max_epochs=1", "teacher.check=warn")
OF_MAPS = ("model@method.students.student=resnet8", "model@method.teacher=resnet8")
NEEDS_MAPS = {
    "knowledge_review": OF_MAPS,
    "student_oriented": OF_MAPS,
    "student_friendly": OF_MAPS[:1],
    "teacher_evolution": OF_MAPS[:1],
}
METHODS = sorted(path.stem for path in (CONF / "method").glob("[!_]*.yaml"))
# Key that a method must have -> choices of a run on made-up data; "": with any method
CHOICES = {
    "": (
        *("optimizer=sgd", "scheduler=multistep", "scheduler=swa", "scheduler=none"),
        *("callbacks=ema", "callbacks=swa", "callbacks=early_stopping", "logger=csv"),
        *("augmentation@data.augmentation=crop_flip", "augmentation@data.augmentation=shift"),
        *("augmentation@data.augmentation=cutout", "mixing@data.mixing=mixup"),
        *("mixing@data.mixing=cutmix", "data.kind=series", "evaluation.adversarial=0.1"),
    ),
    "teacher": ("teacher.cache=1", "teacher.data={mixing:null}"),
    "soft_loss": ("soft_loss@method.soft_loss=dkd", "soft_loss@method.soft_loss=dist"),
    "confidence": ("confidence@method.confidence=margin",),
    "guidance": ("guidance@method.guidance=nearest", "guidance@method.guidance=attention"),
    "feature_loss": tuple(
        f"feature_loss@method.feature_loss={name}"
        for name in ("crd", "relational", "vid", "overhaul", "attention_transfer")
    ),
}
# Keys of places, which have tests of their own, and of what a run cannot be told
LEFT_OUT = {"outputs", "run_dir", "resume", "teacher.store", "teacher.cache_store"}
NUMBERS = [1, 2, 3, 0, -1, 0.5, 1.5, -0.5, 1e-3, 1e3]
ABSURD = [10**9, 2**31, 2**63, 10**20, -(10**20), 1e30, 1e308, 5e-324, math.nan, math.inf]
WORDS = ["", " ", "x", "auto", "null", "ключ", "名前", "a" * 300, "a/b", "../x", "0", "1e3", "off"]


@cache
def config_of(method: str) -> DictConfig:
    """The configuration of a small run with this method. Composed once, for it takes long."""
    return compose([*SMALL, f"method={method}", *NEEDS_MAPS.get(method, ())])


def base_of(method: str) -> tuple[str, ...]:
    """The overrides of a small run with this method."""
    of_teacher = OF_TEACHER if "teacher" in config_of(method).method else ()
    return (*SMALL, *of_teacher, f"method={method}", *NEEDS_MAPS.get(method, ()))


@cache
def keys_of(method: str) -> dict[str, Any]:
    """Key -> annotation, of everything that a run with this method can be told. A key that is not
    in its YAML begins with "+".
    """
    cfg = config_of(method)
    keys = dict(PLAIN)
    for section in ("trainer", "teacher.trainer"):
        keys |= added(OmegaConf.select(cfg, section), trainer_arguments(), section)
    for section in ("method", "data", "optimizer", "scheduler", "teacher", "task", "callbacks"):
        keys |= keys_below(cfg[section], section)
    without = () if "teacher" in cfg.method else ("teacher.", "+teacher.")
    return {k: kind for k, kind in keys.items() if k not in LEFT_OUT and not k.startswith(without)}


@cache
def choices_of(method: str) -> list[str]:
    """The ``CHOICES`` that a run with this method has."""
    keys = config_of(method).method
    return [c for key, choices in CHOICES.items() if not key or key in keys for c in choices]


def keys_below(node: Any, key: str) -> dict[str, Any]:
    """The keys of a node and of all nodes below it."""
    keys: dict[str, Any] = {}
    if not OmegaConf.is_dict(node):
        return keys
    known = arguments_of(get_object(node._target_)).known if "_target_" in node else {}
    keys |= added(node, known, key)
    for name in node:
        if not name.startswith("_"):
            keys.setdefault(f"{key}.{name}", Any)
            if not OmegaConf.is_interpolation(node, name) and not OmegaConf.is_missing(node, name):
                keys |= keys_below(node[name], f"{key}.{name}")
    return keys


def added(node: DictConfig, known: dict[str, Any], key: str) -> dict[str, Any]:
    return {f"{'' if n in node else '+'}{key}.{n}": argument.type for n, argument in known.items()}


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[str, ...]:
    """The overrides of a run with one value of any kind, and perhaps others that are allowed."""
    # Hypothesis prefers what comes first and repeats itself: keys are chosen evenly
    choose = random.Random(draw(st.integers(0, 2**63)))
    method = choose.choice(METHODS)
    choices = choose.sample(choices_of(method), choose.choice((0, 0, 1, 2)))
    keys = keys_of(method)
    first, *others = choose.sample(sorted(keys), choose.choice((1, 1, 2, 3)))
    kinds = [near(keys[first])] * 3 + [anything()]
    given = [f"{first}={as_typed(draw(st.one_of(kinds)))}"]
    given += [f"{name}={as_typed(draw(allowed(keys[name])))}" for name in others]
    return (*base_of(method), *choices, *given)


def allowed(annotation: Any) -> st.SearchStrategy:
    return near(annotation).filter(lambda value: matches(value, annotation))


def near(annotation: Any) -> st.SearchStrategy:
    """Values of a type, at and beyond the edges of its range."""
    kind, span = split_range(annotation)
    if get_origin(kind) in (Union, UnionType):
        return st.one_of(*map(near, get_args(kind)))
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if kind is type(None):
        return st.none()
    if kind is bool:
        return st.booleans()
    if kind in (int, float):
        edges = {span.least, span.above, span.most, span.below} - {math.inf, -math.inf}
        numbers = [*NUMBERS, *map(kind, sorted(edges)), *ABSURD]
        return st.sampled_from([one for one in numbers if kind is float or isinstance(one, int)])
    if kind is str:
        return st.sampled_from(WORDS)
    inner = [one for one in get_args(kind) if one is not Ellipsis]
    origin = get_origin(kind)
    if isinstance(origin, type) and issubclass(origin, Sequence) and inner:
        return st.lists(near(inner[0]), max_size=3)
    if isinstance(origin, type) and issubclass(origin, Mapping) and inner:
        return st.dictionaries(st.sampled_from(["a", "student"]), near(inner[1]), max_size=2)
    return anything()


def anything() -> st.SearchStrategy:
    """What does not fit most keys."""
    scalars = st.one_of(
        st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(ABSURD),
        st.sampled_from(WORDS), st.text(max_size=5),
    )  # fmt: skip
    lists = st.lists(scalars, max_size=3)
    names = st.sampled_from(["a", "student", "_target_", "x1"])
    return st.one_of(scalars, scalars, lists, st.dictionaries(names, scalars, max_size=2))


def as_typed(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{as_typed(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)
