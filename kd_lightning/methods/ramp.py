"""The weight of a loss term that rises over the first part of a run."""

import math

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


def sigmoid_ramp(progress: float | Tensor, share: float) -> float | Tensor:
    """``exp(-5 (1 - s)^2)``, where s is ``ramp``: rises from 0.0067 to 1, slowly at both ends.

    The ramp of Laine and Aila, arXiv 1610.02242. The arguments are those of ``ramp``.
    """
    return math.e ** (-5 * (1 - ramp(progress, share)) ** 2)


def cosine_ramp(progress: float | Tensor, share: float) -> float | Tensor:
    """``(1 - cos(pi s)) / 2``, where s is ``ramp``: rises from 0 to 1, slowly at both ends.

    The arguments are those of ``ramp``.
    """
    angle = math.pi * ramp(progress, share)
    return (1 - (angle.cos() if isinstance(angle, Tensor) else math.cos(angle))) / 2
