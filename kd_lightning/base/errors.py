"""The error for a user's mistake. The command line prints its message without a traceback."""

import difflib
import re
from collections.abc import Iterable

THIS_COMMAND = "<this command>"  # in a message; the command line puts what was typed in its place


class UserError(ValueError):
    """A mistake of the user. The message is one sentence: what was expected, what came, and which
    key to change.

    ``kd_lightning.run`` prints only this message and exits with code 2. Any other exception is a
    bug in this package, and keeps its traceback.
    """


def unknown(kind: str, name: str, valid: Iterable[str], key: str) -> UserError:
    """A ``UserError`` for a name that does not exist. It suggests similar names.

    Args:
        kind: the kind of thing that has this name, such as "timm model".
        name: the unknown name.
        valid: all valid names.
        key: the key to change.
    """
    valid = list(valid)
    similar = difflib.get_close_matches(name, valid, n=5, cutoff=0.5)
    if similar:
        return UserError(f"unknown {kind} '{name}': did you mean {' or '.join(similar)}? ({key}=…)")
    listed = ", ".join(sorted(valid)[:12]) + (", …" if len(valid) > 12 else "")
    return UserError(f"unknown {kind} '{name}': expected one of {listed} ({key}=…)")


def with_full_keys(message: str, key: str) -> str:
    """``message`` with complete keys: for the key ``method.students.a``, "(…weights=…)" becomes
    "(method.students.a.weights=…)".

    The code that builds a net does not know the net's key in the configuration. Its caller does.
    """
    return re.sub(r"…(?=\w)", f"{key}.", message).replace("@…", f"@{key}")
