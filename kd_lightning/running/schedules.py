"""Learning-rate schedules over a whole run, in fractions of it.

With fractions instead of epochs a longer or shorter run keeps the shape of its schedule. Each
schedule is called with the optimizer and the total number of steps, and steps once a batch.
"""

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import NotNegative, Share, ShareAboveZero, ShareBelowOne
from kd_lightning.config.values import checked


def constant(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """The learning rate as it is."""
    return LambdaLR(optimizer, lambda step: 1.0)


@checked("scheduler")
def cosine(
    optimizer: Optimizer,
    total_steps: int,
    *,
    warmup: ShareBelowOne = 0.0,
    final: Share = 0.0,
    end: ShareAboveZero = 1.0,
) -> LambdaLR:
    """Linear warm-up from 0, then half a cosine down (Loshchilov and Hutter, 1608.03983, T_mult 1).

    Args:
        warmup: share of the steps that warm up, in [0, 1).
        final: last learning rate, as a share of the first, in [0, 1].
        end: share of the steps after which it stays at ``final``, in (warmup, 1].
    """
    if not warmup < end:
        raise UserError(f"scheduler.end must be above scheduler.warmup and at most 1, got {end}")
    rising = round(warmup * total_steps)
    falling = round(end * total_steps) - rising

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        done = min(1.0, (step - rising) / max(1, falling))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, factor)


@checked("scheduler")
def multistep(
    optimizer: Optimizer,
    total_steps: int,
    *,
    milestones: Sequence[float],
    gamma: NotNegative = 0.1,
) -> LambdaLR:
    """Multiplies the learning rate by ``gamma`` at each milestone, a share of the run in (0, 1)."""
    if not all(0 < milestone < 1 for milestone in milestones):
        raise UserError(
            f"scheduler.milestones are shares of the run, in (0, 1), got {list(milestones)}"
        )
    steps = [round(milestone * total_steps) for milestone in milestones]
    return LambdaLR(optimizer, lambda step: gamma ** sum(step >= at for at in steps))
