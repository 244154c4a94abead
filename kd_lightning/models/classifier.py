"""The structure of every net: prepare -> trunk -> dropout -> head.

The dropout before the head is here and not inside the trunk, for two reasons. ``features`` is then
the input of the classifier before dropout. And if this is the only dropout, K stochastic passes run
``prepare`` and ``trunk`` once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.models.outputs import ModelOutput


class Prepare(nn.Module):
    """Raw input -> input of the trunk: float, normalized per channel, resized if a size is given.

    Every net normalizes its own input, so teacher and student may have different statistics and
    resolutions. For images (B, C, H, W) and series (B, C, L).

    Args:
        mean, std: of each channel, in the units of a [0, 1] image or of the raw series; None: no
            normalization. They are saved with the weights, which were trained with them.
        size: side to which images are resized (bilinear, antialiased); None: no resizing.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise UserError(f"mean and std must be given together, got mean={mean} and std={std}")
        if std is not None and not all(s > 0 for s in std):
            raise UserError(f"every std must be > 0, got {list(std)}")
        self.size = size
        for name, values in (("mean", mean), ("std", std)):
            buffer = None if values is None else torch.tensor(list(values), dtype=torch.float32)
            self.register_buffer(name, buffer)

    def extra_repr(self) -> str:
        return f"size={self.size}"

    def forward(self, x: Tensor) -> Tensor:
        if not (torch.jit.is_scripting() or torch.jit.is_tracing()):
            self.check(x)
        x = x.contiguous()  # images of a loader may have another layout than the net
        if x.dtype == torch.uint8:
            x = x.float() / 255
        if self.size is not None:
            size = [self.size, self.size]
            if torch.jit.is_tracing() or list(x.shape[-2:]) != size:
                x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
        if self.mean is not None:
            shape = [1, -1] + [1] * (x.ndim - 2)
            x = (x - self.mean.view(shape)) / self.std.view(shape)
        return x

    def check(self, x: Tensor) -> None:
        """Raises ``UserError`` for input that the net cannot take; here none is known."""


class Classifier(nn.Module):
    """A net with the parts and the output that the methods expect.

    Shapes of ``forward`` are in docstrings, because TorchScript reads its annotations. This holds
    for all modules of nets.

    Args:
        prepare: raw input -> input of the trunk; usually ``Prepare``.
        trunk: prepared input -> features (B, D), flattened.
        head: (B, D) -> logits (B, C).
        dropout: rate before the head.
    """

    def __init__(
        self, *, trunk: nn.Module, head: nn.Module, dropout: float, prepare: nn.Module | None = None
    ) -> None:
        super().__init__()
        check_rate("dropout", dropout)
        self.prepare = prepare if prepare is not None else Prepare()
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def features(self, x: Tensor) -> Tensor:
        """The input of the head before its dropout, (B, D)."""
        return self.trunk(self.prepare(x))

    def forward(self, x: Tensor) -> ModelOutput:
        features = self.features(x)
        return ModelOutput(self.head(self.dropout(features)), features)


def check_rate(key: str, rate: float) -> None:
    """Raises ``UserError`` unless ``rate`` is in [0, 1)."""
    if not 0 <= rate < 1:
        raise UserError(f"{key} must be in [0, 1), got {rate} (…{key}=…)")
