"""What the nets of this package share around their trunks: input checks, stages, head, weights.

(timm's nets, in ``timm_nets.py``, share the input checks only.)
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Required, TypedDict

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import Count, ShareBelowOne
from kd_lightning.models.classifier import Classifier, Prepare, check_rate
from kd_lightning.models.weights import check_weights_choice, load_weights, say_once

SHAPES = {1: "series (B, C, L)", 2: "images (B, C, H, W)"}


class CommonArguments(TypedDict, total=False):
    """The arguments that every net of this package takes besides those of its trunk.

    Attributes:
        num_classes: C of the logits.
        in_chans: channels of the input.
        dropout: rate before the head.
        mean, std: of each channel of the input; None: no normalization. A file of weights that has
            its own replaces them; a run then sets those that a person has given.
        input_size: side to which images are resized; None: no resizing.
        interpolation: of that resizing: nearest-exact, bilinear (None) or bicubic.
        weights: "none", or a file of weights.
        weights_key: which of several sets of weights in the file, see ``load_weights``.
    """

    num_classes: Required[Count]
    in_chans: Required[Count]
    dropout: ShareBelowOne
    mean: Sequence[float] | None
    std: Sequence[float] | None
    input_size: Count | None
    interpolation: str | None
    weights: str
    weights_key: str | None


class CheckedPrepare(Prepare):
    """``Prepare`` that raises ``UserError`` for input that the net cannot take.

    Args:
        in_chans: channels of the input.
        num_dims: 2 for images, 1 for series, None for both.
        min_size: smallest side or length for which the strides of the net leave at least one
            position.
        mean, std, size, interpolation: see ``Prepare``.
    """

    def __init__(
        self,
        in_chans: int,
        num_dims: int | None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | None = None,
        interpolation: str = "bilinear",
        min_size: int = 1,
    ) -> None:
        super().__init__(mean, std, size, interpolation)
        if size is not None and num_dims == 1:
            raise UserError(
                f"this net takes series, which are not resized: expected null, got {size} "
                "(…input_size=…)"
            )
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) != in_chans:
                raise UserError(
                    f"{name} must have one value for each of the {in_chans} channels, "
                    f"got {list(values)} (…{name}=…)"
                )
        self.in_chans = in_chans
        self.num_dims = num_dims
        self.min_size = min_size

    def check(self, x: Tensor) -> None:
        super().check(x)
        if self.num_dims is not None and x.ndim != 2 + self.num_dims:
            raise UserError(
                f"this net takes {SHAPES[self.num_dims]}, got a batch of shape {tuple(x.shape)}: "
                f"choose a net for {SHAPES.get(x.ndim - 2, 'such data')} (model@…=…)"
            )
        if x.shape[1] != self.in_chans:
            raise UserError(
                f"this net was built for {self.in_chans} channels, got {x.shape[1]} (…in_chans=…)"
            )
        size = tuple(x.shape[2:]) if self.size is None else (self.size, self.size)
        if min(size) < self.min_size:
            raise UserError(
                f"this net needs a size of {self.min_size} or more, got {size}: "
                f"choose another net (model@…=…)"
            )


class GlobalAverage(nn.Module):
    """Mean over all positions: (B, D, *size) -> (B, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(list(range(2, x.ndim)))


def select_rows(head: nn.Linear, rows: Sequence[int]) -> None:
    """Leaves these rows of a head, in this order: the logits of these classes."""
    chosen = torch.tensor(list(rows))
    head.weight = nn.Parameter(head.weight.detach()[chosen])
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias.detach()[chosen])
    head.out_features = len(chosen)


def build_trunk(
    stages: Sequence[nn.Module],
    block_dropout: float,
    *,
    stem: nn.Module | None = None,
    tail: nn.Module | None = None,
) -> nn.Sequential:
    """A trunk: stem, stages with dropout after each of them, tail, global average.

    There are dropout modules at rate 0 too, so that the rate does not change the names of weights.
    """
    check_rate("block_dropout", block_dropout)
    modules = OrderedDict(stem=stem)
    for number, stage in enumerate(stages, 1):
        modules[f"stage{number}"] = stage
        modules[f"dropout{number}"] = nn.Dropout(block_dropout)
    modules |= {"tail": tail, "pool": GlobalAverage()}
    return nn.Sequential(OrderedDict((k, v) for k, v in modules.items() if v is not None))


def build_classifier(
    trunk: nn.Module,
    num_features: int,
    *,
    num_dims: int | None,
    num_classes: int,
    in_chans: int,
    dropout: float = 0.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: int | None = None,
    interpolation: str | None = None,
    weights: str = "none",
    weights_key: str | None = None,
    min_size: int = 1,
) -> Classifier:
    """A ``Classifier`` with this trunk, which has ``num_features`` outputs. All factories end here.

    Args:
        num_dims, min_size: see ``CheckedPrepare``.
        num_classes, in_chans, dropout and all others: see ``CommonArguments``.
    """
    check_weights_choice(weights, allow_pretrained=False)
    prepare = CheckedPrepare(
        in_chans,
        num_dims,
        mean=mean,
        std=std,
        size=input_size,
        interpolation=interpolation or "bilinear",
        min_size=min_size,
    )
    head = nn.Linear(num_features, num_classes)
    net = Classifier(prepare=prepare, trunk=trunk, dropout=dropout, head=head)
    if weights != "none":
        net.starts_trained = True
        for note in load_weights(net, weights, weights_key=weights_key).notes:
            say_once(note)
    return net
