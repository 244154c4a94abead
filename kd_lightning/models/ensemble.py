"""Several nets as one: the mean of their probabilities. Dimensions: B batch, C classes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.outputs import ModelOutput

LOGITS_ONLY = (
    "several teachers answer with the mean of their probabilities, and this method needs more of a "
    "teacher than its logits: name one teacher (teacher.source=…), or choose a method such as kd"
)


class Ensemble(nn.Module):
    """Nets whose logits are the log of their mean probabilities, at temperature 1.

    The nets take the same raw input, and each prepares it by itself. There are no features: asking
    for them, or for a trunk or a head, raises ``UserError``.

    Args:
        nets: raw input -> ``ModelOutput``, for the same classes.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> ModelOutput:
        logits = torch.stack([net(x).logits.float() for net in self.nets])
        mean = logits.log_softmax(-1).logsumexp(0) - math.log(len(self.nets))
        return LogitsOnly(mean, None)

    def __getattr__(self, name: str) -> Any:
        if name in ("trunk", "head", "features"):
            raise UserError(LOGITS_ONLY)
        return super().__getattr__(name)


class LogitsOnly(ModelOutput):
    """The output of a net without features."""

    __slots__ = ()

    @property
    def features(self) -> Tensor:
        raise UserError(LOGITS_ONLY)
