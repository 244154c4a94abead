"""Checks of what a person gives a method."""

from kd_lightning.base.errors import UserError


def check_positive(**values: float) -> None:
    """Raises ``UserError`` for the first value that is not > 0."""
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} must be > 0, got {value} (method.{name}=…)")


def check_weights(**values: float) -> None:
    """Raises ``UserError`` for the first value that is negative, or where all are 0."""
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise UserError(f"{name} must be >= 0, got {value} (method.{name}=…)")
    if not any(values.values()):
        raise UserError(f"one of {', '.join(values)} must be > 0, got 0 for each")
