"""The weight of a loss term that rises over the first part of a run."""

from torch import Tensor


def ramp(progress: float | Tensor, share: float) -> float | Tensor:
    """Factor of a term's weight, in [0, 1]: rises linearly from 0 to 1 over ``share`` of the run.

    Args:
        progress: share of the run that is done.
        share: in [0, 1]; 0: 1 from the first step.
    """
    if share == 0:
        return 1.0
    if isinstance(progress, Tensor):
        return (progress / share).clamp_max(1.0)
    return min(1.0, progress / share)
