"""Checks of what a person gives a method."""

from collections.abc import Callable
from typing import Any

from kd_lightning.base.errors import UserError


def check_weights(**values: float) -> None:
    """Raises ``UserError`` where all weights of a method are 0."""
    if not any(values.values()):
        raise UserError(f"one of {', '.join(values)} must be > 0, got 0 for each")


# why a soft loss needs more than the highest logits
ALL_CLASSES = "this soft loss compares all classes, whatever their probability"


def check_call(name: str, function: Callable, *example: Any, advice: str = "") -> Any:
    """Calls a function of the configuration with a small example, so that it refuses its settings
    before anything is trained.

    Args:
        name: of the method's argument, which is also its group in ``conf/``.
        advice: what to do; "": change a setting of the function.

    Returns:
        What the function returns for the example.

    Raises:
        UserError: the function raised ``ValueError``.
    """
    try:
        return function(*example)
    except ValueError as error:
        what = advice or f"method.{name}.…=…, or {name}@method.{name}=…"
        raise UserError(f"{name} refuses its settings: {error} ({what})") from error
