"""The one kind of error a person can cause: a sentence, and no traceback on the command line."""

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Something asked for cannot be done: says what was expected, what came, which key to change.

    ``kd_lightning.run`` prints its message alone and exits with code 2. Anything else that is
    raised is a bug of ours, and keeps its traceback.
    """


def unknown(kind: str, name: str, known: Iterable[str], key: str) -> UserError:
    """A ``UserError`` for a name that does not exist, with the nearest names that do.

    Args:
        kind: what was asked for, as a person would say it ("timm model").
        name: what came.
        known: every valid name.
        key: the key to change.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    if near:
        return UserError(f"unknown {kind} '{name}': did you mean {' or '.join(near)}? ({key}=…)")
    shown = ", ".join(sorted(known)[:12]) + (", …" if len(known) > 12 else "")
    return UserError(f"unknown {kind} '{name}': expected one of {shown} ({key}=…)")


def placed(sentence: str, key: str) -> str:
    """``sentence`` of something that does not know where in the configuration it stands, told by
    who knows: "(…weights=…)" becomes "(method.students.a.weights=…)".
    """
    return re.sub(r"…(?=\w)", f"{key}.", sentence).replace("@…", f"@{key}")
