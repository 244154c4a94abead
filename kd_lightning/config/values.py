"""Whether a value is what its annotation says: its type, and the range of a number."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from omegaconf import OmegaConf

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import FINITE, Range

TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


def matches(value: Any, annotation: Any, *, ranges: bool = True) -> bool:
    """Whether a value of the configuration has the annotated type. A missing or unreadable
    annotation matches any value.

    Args:
        ranges: whether each number must be in its range, too.
    """
    annotation, span = split_range(annotation)
    origin, inner = get_origin(annotation) or annotation, get_args(annotation)
    is_like = functools.partial(matches, ranges=ranges)
    if OmegaConf.is_dict(value) and "_target_" in value:
        return True  # the type of what will be built is not known here
    if origin in (Union, UnionType):
        return any(is_like(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin in (None, NoneType):
        return value is None
    if origin in (Any, object, inspect.Parameter.empty) or not isinstance(origin, type):
        return True
    if issubclass(origin, int | float):
        return is_number(value, origin) and (origin is bool or not ranges or span.holds(value))
    if issubclass(origin, str | PathLike):
        return isinstance(value, str)
    if issubclass(origin, Mapping):
        return is_mapping(value) and all(is_like(v, *inner[1:] or [Any]) for v in value.values())
    if issubclass(origin, Sequence):
        is_long = is_list(value) and (not ranges or span.holds(len(value)))
        return is_long and matches_each(list(value), inner, is_like)
    return False


def split_range(annotation: Any) -> tuple[Any, Range]:
    """A type, and the range that is declared with it."""
    if get_origin(annotation) is not Annotated:
        return annotation, FINITE
    inner, *notes = get_args(annotation)
    return inner, next((note for note in notes if isinstance(note, Range)), FINITE)


def is_number(value: Any, kind: type) -> bool:
    """Whether a value is of this kind of number; bool is one of its own."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int | kind)


def is_mapping(value: Any) -> bool:
    return OmegaConf.is_dict(value) or isinstance(value, Mapping)


def is_list(value: Any) -> bool:
    return OmegaConf.is_list(value) or isinstance(value, list | tuple)


def matches_each(
    values: list[Any], types: Sequence[Any], is_like: Callable[[Any, Any], bool]
) -> bool:
    """Whether the values match the ``types`` in list[int], tuple[int, ...] or tuple[int, str]."""
    if len(types) < 2 or types[-1] is Ellipsis:
        types = [*types, Any][:1] * len(values)
    return len(values) == len(types) and all(map(is_like, values, types))


def describe(annotation: Any, value: Any = None) -> str:
    """An annotation in words; "" if its values can only be built by a ``_target_``.

    Args:
        value: that does not match. Of a number that is out of range only the range is said.
    """
    annotation, span = split_range(annotation)
    origin, inner = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Union, UnionType):
        words = dict.fromkeys(describe(one, value) for one in inner)
        if TYPE_NAMES[float] in words:
            words.pop(TYPE_NAMES[int], None)
        return " or ".join(filter(None, words))
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (int, float):
        if is_number(value, origin):
            return span.words(value)
        return TYPE_NAMES[origin] + ("" if span == FINITE else f" {span.words()}")
    if origin in TYPE_NAMES:
        return TYPE_NAMES[origin]
    if not isinstance(origin, type):
        return ""
    if issubclass(origin, str | PathLike):
        return "text"
    if issubclass(origin, Mapping):
        each = describe(inner[1]) if inner else ""
        return "keys and values" + (f", each {each}" if each else "")
    if issubclass(origin, Sequence):
        each = describe(inner[0]) if inner else ""
        length = str(len(inner)) if len(inner) > 1 and Ellipsis not in inner else span.bounds()
        words = f"a list of length {length}" if length else "a list"
        return f"{words}, each {each}" if each else words
    return ""


def check(value: Any, annotation: Any, key: str, otherwise: str = "") -> None:
    """Raises ``UserError`` for a value that its annotation does not allow. The sentence names the
    element of a list or mapping whose number is out of range.

    Args:
        otherwise: what is expected, where the annotation cannot be said in words.
    """
    if matches(value, annotation):
        return
    if matches(value, annotation, ranges=False):
        for name, element in elements_of(value):
            check(element, element_type(annotation), f"{key}{name}")
    expected = describe(annotation, value) or otherwise
    raise UserError(f"{key} must be {expected}, got {as_text(value)}")


def elements_of(value: Any) -> list[tuple[str, Any]]:
    """The elements of a list or mapping, each with the end of its key."""
    if is_mapping(value):
        return [(f".{name}", one) for name, one in value.items()]
    return [(f"[{i}]", one) for i, one in enumerate(value)] if is_list(value) else []


def element_type(annotation: Any) -> Any:
    """The type of each element of a list or mapping; ``Any`` where they have several."""
    annotation, _ = split_range(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return next((one for one in map(element_type, inner) if one is not Any), Any)
    if not isinstance(origin, type) or not issubclass(origin, Mapping | Sequence):
        return Any
    types = {*(inner[1:] if issubclass(origin, Mapping) else inner)} - {Ellipsis}
    return types.pop() if len(types) == 1 else Any


def as_text(value: Any) -> str:
    return "null" if value is None else str(value)


# The same check of what is called from Python


def checked(section: str) -> Callable[[Callable], Callable]:
    """A decorator: the function refuses a keyword whose number is out of its declared range.

    Args:
        section: of the configuration that has these keywords as its keys, for the sentence.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            check_numbers(function, keywords, section)
            return function(*args, **keywords)

        return call

    return decorate


def check_numbers(function: Callable, keywords: Mapping[str, Any], section: str) -> None:
    """Raises ``UserError`` for the first number that is out of the range which ``function``
    declares. The types of other values are not checked: Python takes more than YAML can say.
    """
    annotations = annotations_of(function)
    for name, value in keywords.items():
        annotation = annotations.get(name, Any)
        if matches(value, annotation, ranges=False):
            check(value, annotation, f"{section}.{name}")


@functools.cache
def annotations_of(function: Callable) -> dict[str, Any]:
    parameters = inspect.signature(function, eval_str=True).parameters
    return {name: parameter.annotation for name, parameter in parameters.items()}


class CheckedNumbers:
    """A base class: the constructors of all classes below it are ``checked``."""

    section: ClassVar[str]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.section)(cls.__init__)
