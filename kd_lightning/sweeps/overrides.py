"""Overrides as words: what one names, what values it has, and how a value is spelled as one."""

import functools
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString

from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import CONF


def parsed_all(words: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(words))


def fixed_words(words: Sequence[str]) -> list[str]:
    """Those words of a command line that do not vary."""
    return [one.input_line for one in parsed_all(words) if not one.is_sweep_override()]


def key_of(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def cells_of(override: Override) -> list[str]:
    """The overrides that a sweep over one key stands for."""
    key = override.get_key_element()
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} is no list of values: give them one by one, {key}=1,2,3, or "
            "search in an interval (sweep=search)"
        )
    if "glob(" in override.input_line:
        group = CONF / key.lstrip("+").split("@")[0]
        names = sorted(path.stem for path in group.glob("[!_]*.yaml"))
        return [f"{key}={name}" for name in override.value().filter(names)]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def last_wins(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides without those that a later one sets again."""
    return tuple({key_of(parsed(one)): one for one in overrides}.values())


def value_of(cell: str) -> Any:
    """The plain value of an override."""
    return plain(parsed(cell).value())


@functools.cache  # an archive's plan has thousands of jobs of the same words
def parsed(override: str) -> Override:
    (one,) = parsed_all([override])
    return one


def plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    return value


def spelled(key: str, value: Any) -> str:
    """The override that sets ``key`` to a plain value."""
    return f"{key}={in_words(value)}"


def in_words(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(in_words, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{in_words(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        as_it_is = re.fullmatch(r"[\w./+-][\w./:+-]*", value) and value_of(f"key={value}") == value
        return value if as_it_is else QuotedString(value, Quote.single).with_quotes()
    return str(value)
