"""Calls the constructors that a student file names, if they may be called.

A file from elsewhere must not decide what is executed. So a constructor is called only if it is
defined in one of ``OUR_MODULES``, or in a package that the caller allows.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kd_lightning.base.errors import UserError
from kd_lightning.models.checkpoints import first_line

OUR_MODULES = tuple(
    f"kd_lightning.models.{name}"
    for name in ("cifar", "perceptron", "projected", "time_series", "timm_nets")
)
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
    function = find_constructor(name, path, allow)
    call = partial(function, *construct(values.get("_args_", []), path, allow), **arguments)
    if values.get("_partial_"):
        return call
    try:
        return call()
    except Exception as error:  # a constructor can raise anything
        raise UserError(
            f"{path} was written for another version of {name}: {first_line(error)}"
        ) from error


def find_constructor(name: str, path: Path, allow: Sequence[str]) -> Callable[..., Any]:
    """The function or class with this dotted name.

    Raises:
        UserError: it is not allowed or cannot be imported.
    """
    module, _, function = name.rpartition(".")
    is_ours = module in OUR_MODULES
    allowed = next((word for word in allow if f"{name}.".startswith(f"{word}.")), None)
    if not is_ours and allowed is None:
        raise UserError(
            f"{path} asks to call {name}, which is no net of kd_lightning: if you trust it, allow "
            f'its module (--allow {module}, or allow=["{module}"] in Python)'
        )
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} needs {name}, which cannot be imported ({error}): install its package, or "
            "start Python where it is"
        ) from error
    # a module also has the names that it imports, such as os.system
    home = str(getattr(found, "__module__", ""))
    if home != module if is_ours else top_package(home) != top_package(allowed):
        raise UserError(f"{path} asks to call {name}, which is defined elsewhere ({home})")
    return found


def top_package(module: str) -> str:
    return module.partition(".")[0]
