"""The options of the commands: their parser, which refuses a wrong word in one sentence."""

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from kd_lightning import __version__
from kd_lightning.base.errors import UserError


def command_parser(name: str, description: str, **more: Any) -> "CommandParser":
    """The parser of ``python -m kd_lightning.<name>``, with ``--help`` and ``--version``.

    Args:
        description: a module's docstring, whose line breaks are kept.
        more: arguments of ``CommandParser``.
    """
    parser = CommandParser(
        prog=f"python -m kd_lightning.{name}", description=description.replace("``", ""), **more
    )
    version = f"kd_lightning {__version__}"
    parser.add_argument("--version", action="version", version=version, help="show the version")
    return parser


class CommandParser(argparse.ArgumentParser):
    """Ends with one sentence and exit code 2 for words that the command does not take.

    Args:
        takes_keys: whether the command takes ``key=value``.
        others: options that the command has, too, but this parser does not know.
        more: arguments of ``argparse.ArgumentParser``.
    """

    def __init__(
        self, *, takes_keys: bool = False, others: Iterable[str] = (), **more: Any
    ) -> None:
        self.takes_keys = takes_keys
        self.others = others
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **more)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        # first, because argparse would name a missing argument before an unknown option
        words = sys.argv[1:] if args is None else list(args)
        try:
            check_not_empty(words)
            options = [*self._option_string_actions, *self.others]
            check_options(words, options, self.prog, self.takes_keys)
        except UserError as error:
            self._end(str(error))
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        self._end(f"{message.removeprefix('argument ')} ({self.prog} --help)")

    def _end(self, sentence: str) -> NoReturn:
        self.exit(2, f"Error: {sentence}\n")


def check_options(
    words: Sequence[str], options: Sequence[str], command: str, takes_keys: bool
) -> None:
    """Raises ``UserError`` for the first word that looks like an option and is none.

    Args:
        options: all that the command has; a word may be the beginning of one.
        command: as it is typed, without options.
        takes_keys: whether the command takes ``key=value``.
    """
    for word in words:
        if word == "--":  # what follows is no option
            return
        if re.match("--?[a-zA-Z]", word) and not any(names(word, option) for option in options):
            raise unknown_option(word, options, command, takes_keys)


def check_not_empty(words: Sequence[str]) -> None:
    """Raises ``UserError`` for an empty word, which would be a path to the current folder."""
    for before, word in zip(["", *words], words, strict=False):
        if not word or re.fullmatch(r"--[\w-]+=", word):
            place = word or before or "the first argument"
            raise UserError(f"expected a path or a name, got an empty one ({place})")


def names(word: str, option: str) -> bool:
    """Whether a word is this option: ``--opt``, ``--opt=value``, or ``-o``, ``-ovalue``."""
    if option.startswith("--"):
        return option.startswith(word.partition("=")[0]) and word.startswith("--")
    return word.startswith(option)


def unknown_option(word: str, options: Sequence[str], command: str, takes_keys: bool) -> UserError:
    """The error for a word with ``--`` that is no option: people also write keys like this."""
    name, equals, value = word.partition("=")
    similar = difflib.get_close_matches(name, options, n=3, cutoff=0.7)
    if "." not in name and (similar or not (equals and takes_keys)):
        advice = f": did you mean {' or '.join(similar)}?" if similar else ""
        return UserError(f"unknown option {name}{advice} ({command} --help lists all)")
    key = f"{name[2:]}={value or '…'}"
    if takes_keys:
        return UserError(f"{word} is a key and no option of {command}: write {key}, without --")
    return UserError(f"{command} takes options and no keys such as {key} ({command} --help)")
