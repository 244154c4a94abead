"""Reads and writes Hydra overrides as text: their keys, and the values they set or sweep over."""

import functools
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString

from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import CONF


def parse_all(words: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(words))


def fixed_words(words: Sequence[str]) -> list[str]:
    """The words of a command line that do not sweep over values. Of several with one key the last
    counts, so a value is none of them if a list comes after it.
    """
    overrides = parse_all(words)
    swept = {key_of(o): o.is_sweep_override() for o in overrides}
    return [o.input_line for o in overrides if not swept[key_of(o)] and not o.is_sweep_override()]


def key_of(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def expand_values(override: Override) -> list[str]:
    """The single overrides that a sweep over one key stands for: "a=1,2" is "a=1" and "a=2"."""
    key = override.get_key_element()
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} is not a list of values: give them one by one, {key}=1,2,3, or "
            "search in an interval (sweep=search)"
        )
    if "glob(" in override.input_line:
        group = CONF / key.lstrip("+").split("@")[0]
        names = sorted(path.stem for path in group.glob("[!_]*.yaml"))
        return [f"{key}={name}" for name in override.value().filter(names)]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def last_wins(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides; of several with the same key only the last."""
    return tuple({key_of(parse(override)): override for override in overrides}.values())


def value_of(override: str) -> Any:
    """The value that an override sets, as a plain Python object."""
    return plain(parse(override).value())


@functools.cache  # a sweep over an archive has thousands of jobs with the same overrides
def parse(word: str) -> Override:
    (override,) = parse_all([word])
    return override


def plain(value: Any) -> Any:
    """A value without Hydra's types."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    return value


def format_override(key: str, value: Any) -> str:
    """The override that sets ``key`` to a plain value. ``value_of`` reads the value back."""
    return f"{key}={format_value(value)}"


def format_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{format_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        # Hydra takes other letters than those of ASCII in quotes alone
        signs = re.fullmatch(r"[\w./+-][\w./:+-]*", value, re.ASCII)
        simple = signs and value_of(f"key={value}") == value
        return value if simple else QuotedString(value, Quote.single).with_quotes()
    return str(value)
