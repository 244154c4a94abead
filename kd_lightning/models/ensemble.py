"""Several nets as one: the mean of their probabilities. Dimensions: B batch, C classes."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.losses.soft_targets import mean_log_probs
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
        return LogitsOnly(mean_log_probs([net(x).logits for net in self.nets], 1.0), None)

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
