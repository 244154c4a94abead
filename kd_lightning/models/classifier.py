"""The structure of every net: prepare -> trunk -> dropout -> head.

The dropout before the head is here and not inside the trunk, for two reasons. ``features`` is then
the input of the classifier before dropout. And if this is the only dropout, K stochastic passes run
``prepare`` and ``trunk`` once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.interpolations import INTERPOLATIONS, OF_NETS
from kd_lightning.models.outputs import ModelOutput

STATISTICS = ("prepare.mean", "prepare.std")  # in the state dict of a ``Classifier``


class Prepare(nn.Module):
    """Raw input -> input of the trunk: float, normalized per channel, resized if a size is given.

    Every net normalizes its own input, so teacher and student may have different statistics and
    resolutions. For images (B, C, H, W) and series (B, C, L).

    Args:
        mean, std: of each channel, in the units of a [0, 1] image or of the raw series; None: no
            normalization. They are saved with the weights, which were trained with them.
        size: side to which images are resized (antialiased); None: no resizing.
        interpolation: of that resizing: nearest-exact (or nearest, its earlier name), bilinear or
            bicubic. Bicubic values are clipped to
            [0, 1], as those of an image file are.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | None = None,
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__()
        if size is not None and size < 1:
            raise UserError(f"input_size must be >= 1 or null, got {size} (…input_size=…)")
        interpolation = OF_NETS.get(interpolation, interpolation)
        if interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", interpolation, INTERPOLATIONS, "…interpolation")
        self.size = size
        self.interpolation = interpolation
        self.set_statistics(mean, std)

    def set_statistics(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Sets or replaces the statistics with which the input is normalized; None: none."""
        if (mean is None) != (std is None):
            raise UserError(
                f"mean and std must be given together, got mean={mean} and std={std} (…mean=…)"
            )
        if std is not None and not all(s > 0 for s in std):
            raise UserError(f"every std must be > 0, got {list(std)} (…std=…)")
        for name, values in (("mean", mean), ("std", std)):
            buffer = None if values is None else torch.tensor(list(values), dtype=torch.float32)
            self.register_buffer(name, buffer)

    def extra_repr(self) -> str:
        resized = "" if self.interpolation == "bilinear" else f", {self.interpolation}"
        return f"size={self.size}{resized}"

    def forward(self, x: Tensor) -> Tensor:
        if not (torch.jit.is_scripting() or torch.jit.is_tracing()):
            self.check(x)
        x = x.contiguous()  # images of a loader may have another layout than the net
        if x.dtype == torch.uint8:  # an image of 0 to 255; in a series they are plain numbers
            x = x.float() / 255 if x.ndim == 4 else x.float()
        elif x.dtype == torch.float64 and self.mean is not None:  # NumPy's own
            x = x.to(self.mean.dtype)
        if self.size is not None:
            x = self.resize(x, self.size)
        if self.mean is not None:
            shape = [1, -1] + [1] * (x.ndim - 2)
            x = (x - self.mean.view(shape)) / self.std.view(shape)
        return x

    def check(self, x: Tensor) -> None:
        """Raises ``UserError`` for input that the net cannot take."""
        if self.size is not None and x.ndim != 4:
            raise UserError("input_size is for images, and these are series (…input_size=null)")

    def resize(self, x: Tensor, size: int) -> Tensor:
        """Images of any size -> (B, C, size, size)."""
        if not torch.jit.is_tracing() and list(x.shape[-2:]) == [size, size]:
            return x
        if self.interpolation == "nearest-exact":
            return F.interpolate(x, [size, size], mode="nearest-exact")
        x = F.interpolate(
            x, [size, size], mode=self.interpolation, antialias=True, align_corners=False
        )
        return x.clamp(0, 1) if self.interpolation == "bicubic" else x


class Classifier(nn.Module):
    """A net with the parts and the output that the methods expect.

    Shapes of ``forward`` are in docstrings, because TorchScript reads its annotations. This holds
    for all modules of nets.

    Args:
        prepare: raw input -> input of the trunk; usually ``Prepare``.
        trunk: prepared input -> features (B, D), flattened.
        head: (B, D) -> logits (B, C).
        dropout: rate before the head.

    Attributes:
        library_head: if the trunk is the net of a library without its head: the name of the head in
            that net, and so in the library's files; None: files have the names of this class.
        starts_trained: whether it was built with trained weights.
    """

    library_head: str | None = None
    starts_trained: bool = False

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
