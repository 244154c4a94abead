"""The error for a user's mistake. The command line prints its message without a traceback."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kd_lightning.base.words import shorten

SHOWN = 8  # names in a message; there may be many more
SIMILAR = 3
COPY = "take it from a copy, or make it again"
THIS_COMMAND = "<this command>"  # in a message; the command line puts what was typed in its place


class UserError(ValueError):
    """A mistake of the user. The message is one sentence: what was expected, what came, and which
    key to change.

    ``kd_lightning.run`` prints only this message and exits with code 2. Any other exception is a
    bug in this package, and keeps its traceback.
    """


class Damaged(UserError):
    """A kept file is missing, cut short or changed, or cannot be understood.

    Args:
        path: of the file.
        what: is wrong with it, in words.
        advice: what to do.

    Attributes:
        path, what: the same.
    """

    # a loading process hands on the message alone
    def __init__(self, path: Path | str, what: str = "", advice: str = COPY) -> None:
        super().__init__(f"{path} {what}: {advice}" if what else str(path))
        self.path = path
        self.what = what
        self.advice = advice

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.what, self.advice)


def unknown(
    kind: str, name: str, valid: Iterable[str], key: str, listed_by: str | None = None
) -> UserError:
    """A ``UserError`` for a name that does not exist. It suggests similar names.

    Args:
        kind: the kind of thing that has this name, such as "timm model".
        name: the unknown name.
        valid: all valid names.
        key: the key or the option to change.
        listed_by: a command that prints all valid names, which may be many.
    """
    valid = sorted(valid)
    change = f"{key} …" if key.startswith("--") else f"{key}=…"
    if listed_by is not None and len(valid) > SHOWN:
        change += f"; all: {listed_by}"
    if similar := similar_names(name, valid):
        advice = f"did you mean {' or '.join(similar)}?"
    else:
        advice = f"expected one of {shorten(valid, SHOWN)}"
    return UserError(f"unknown {kind} '{name}': {advice} ({change})")


def similar_names(name: str, valid: Iterable[str]) -> list[str]:
    """At most three similar names, the most similar first. A key that has the same last part comes
    before all others: ``lr`` may mean ``optimizer.lr``.
    """
    valid = list(valid)
    small = {other: other.lower() for other in valid}
    last = name.lower().rpartition(".")[2]
    same = [other for other in valid if small[other].rpartition(".")[2] == last]
    similar = difflib.get_close_matches(name.lower(), small.values(), n=SIMILAR, cutoff=0.5)
    close = [other for one in similar for other in valid if small[other] == one]
    return list(dict.fromkeys([*same, *close]))[:SIMILAR]


def with_full_keys(message: str, key: str) -> str:
    """``message`` with complete keys: for the key ``method.students.a``, "(…weights=…)" becomes
    "(method.students.a.weights=…)".

    The code that builds a net does not know the net's key in the configuration. Its caller does.
    """
    return re.sub(r"…(?=\w)", f"{key}.", message).replace("@…", f"@{key}")
