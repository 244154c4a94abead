"""Means of the logged scalars, summed on the device and read rarely.

``LightningModule.log`` costs hundreds of Python calls a value and, on a GPU, a wait for the device.
``RunningMeans`` adds each step's values to one tensor, which is read once in a logging interval. It
also stores, on the device, the first step at which each value was not finite.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kd_lightning.base.errors import UserError

NEVER = torch.iinfo(torch.int64).max
IN_TRAINING = "lower optimizer.lr, or set trainer.gradient_clip_val, or hardware.precision=32"
AT_FIRST = (
    "nothing was learnt before, so look for values that are no numbers, or too large, in the data "
    "or in weights that a net begins with, or set hardware.precision=32"
)


class RunningMeans:
    """Running sums of named scalars, over a logging interval and over an epoch.

    Attributes:
        cause: in words, why a value is not finite, with what to change; None: it is not known.
    """

    def __init__(self) -> None:
        self.cause: Callable[[], str | None] = lambda: None
        self.names: list[str] = []
        self._interval: Tensor | None = None  # sums since the last read; the last entry counts
        self._epoch: Tensor | None = None
        self._bad: Tensor | None = None  # (V,) first step at which each value was not finite

    @torch.no_grad()
    def add(self, names: Sequence[str], row: Float[Tensor, "V"], step: int) -> None:
        """Adds one step's scalars; the names must be the same at every step of an epoch."""
        if self._epoch is None:
            self.names = list(names)
            self._interval = row.new_zeros(len(row) + 1)
            self._epoch = row.new_zeros(len(row) + 1)
            self._bad = torch.full((len(row),), NEVER, dtype=torch.int64, device=row.device)
        self._bad = torch.where(row.isfinite(), self._bad, self._bad.clamp_max(step))
        row = torch.cat([row, row.new_ones(1)])
        self._interval += row
        self._epoch += row

    def read_interval(self) -> dict[str, float]:
        """Means since the last read; starts a new interval."""
        means = self._means(self._interval)
        self._interval.zero_()
        return means

    def read_epoch(self) -> dict[str, float]:
        """Means of the epoch; starts a new epoch."""
        means = self._means(self._epoch)
        self._interval = self._epoch = self._bad = None
        return means

    def check_finite(self) -> None:
        """Raises ``UserError`` naming the first step and term that was not finite, on any rank."""
        if self._bad is None:
            return
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(self._bad, torch.distributed.ReduceOp.MIN)
        bad = self._bad.tolist()
        step = min(bad)
        if step != NEVER:
            terms = [name for name, at in zip(self.names, bad, strict=True) if at == step]
            advice = self.cause() or (IN_TRAINING if step else AT_FIRST)
            raise UserError(
                f"the loss term {terms[0]} was not finite at step {step}: the run stops and "
                f"keeps its last good checkpoint; {advice}"
            )

    def _means(self, sums: Tensor) -> dict[str, float]:
        self.check_finite()
        *totals, count = sums.tolist()
        return {name: total / count for name, total in zip(self.names, totals, strict=True)}
