"""A loss term that counts little at first: a ramp over the first share of a run."""

from torch import Tensor

from kd_lightning.base.errors import UserError


def ramp(progress: float | Tensor, share: float) -> float | Tensor:
    """How much of a term counts by now, in [0, 1]: rises linearly from 0 over ``share`` of the run.

    Args:
        progress: share of the run that is done.
        share: in [0, 1]; 0: the whole term counts from the first step.
    """
    if share == 0:
        return 1.0
    if isinstance(progress, Tensor):
        return (progress / share).clamp_max(1.0)
    return min(1.0, progress / share)


def check_ramp(**shares: float) -> None:
    """Raises ``UserError`` for the first share that is not in [0, 1]."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise UserError(f"{name} must be in [0, 1], got {share} (method.{name}=…)")
