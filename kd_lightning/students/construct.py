"""Calls the constructors that a student file names, if they may be called.

A file from elsewhere must not decide what is executed: see ``kd_lightning.base.allowed``. Of this
package it may name the nets.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kd_lightning.base.allowed import find_constructor, registered
from kd_lightning.base.errors import UserError
from kd_lightning.models.checkpoints import first_line

# Arguments that matter only before or while a net is trained: of any net, and of those of this
# package. A net from elsewhere may need the others to be built.
OF_ALL_TRAINING = ("weights", "weights_key", "imagenet_rows", "require_head")
OF_TRAINING = (*OF_ALL_TRAINING, "drop_path")
HYDRAS = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")


def construct(values: Any, path: Path, allow: Sequence[str]) -> Any:
    """Calls every constructor in ``values``, the innermost first, as Hydra's ``instantiate`` does.

    Args:
        values: plain values; a mapping with ``_target_`` is a call of that function.
        path: the file that has the values, for messages.
        allow: packages, or functions, that may be called.

    Raises:
        UserError: a constructor is not allowed, cannot be imported or fails.
    """
    if isinstance(values, list):
        return [construct(value, path, allow) for value in values]
    if not isinstance(values, dict):
        return values
    arguments = {k: construct(v, path, allow) for k, v in values.items() if k not in HYDRAS}
    if "_target_" not in values:
        return arguments
    name = str(values["_target_"])
    function = find_constructor(name, path, allow, group="model")
    odd = [key for key in arguments if key in OF_TRAINING]
    if odd and name in registered("model"):  # a file that is received reads no other file
        raise UserError(f"{path} is no student file: its constructor has the argument {odd[0]}")
    call = partial(function, *construct(values.get("_args_", []), path, allow), **arguments)
    if values.get("_partial_"):
        return call
    try:
        return call()
    except Exception as error:  # a constructor can raise anything
        raise UserError(
            f"{path} was written for another version of {name}: {first_line(error)}"
        ) from error
