"""Nets for time series: any number of channels, any length, global average pooling at the end.

FCN and ResNet are from Wang, Yan & Oates 2017 ("Time series classification from scratch"),
InceptionTime is from Ismail Fawaz et al. 2020. Two things are left out: InceptionTime's ensemble of
five nets, which takes five runs; and the biases of convolutions before a batch norm, which removes
them.
"""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import Count, Counts, ShareBelowOne
from kd_lightning.models.assemble import CommonArguments, build_classifier, build_trunk
from kd_lightning.models.classifier import Classifier


class SamePaddingConv(nn.Conv1d):
    """A convolution that keeps the length; Glorot-uniform weights, no bias.

    Padded as in Keras, which the papers used: an even kernel covers one step more ahead than back.
    """

    def __init__(self, num_in: int, num_out: int, kernel: int) -> None:
        super().__init__(num_in, num_out, kernel, padding=(kernel - 1) // 2, bias=False)
        nn.init.xavier_uniform_(self.weight)
        self.ahead = 1 - kernel % 2

    def forward(self, x: Tensor) -> Tensor:
        if self.ahead > 0:
            x = F.pad(x, (0, self.ahead))
        return self._conv_forward(x, self.weight, self.bias)


def conv_norm(num_in: int, num_out: int, kernel: int) -> list[nn.Module]:
    return [SamePaddingConv(num_in, num_out, kernel), nn.BatchNorm1d(num_out)]


class ResidualBlock(nn.Module):
    """relu(main(x) + shortcut(x)).

    The shortcut is a batch norm, after a convolution of size 1 if it projects.
    """

    def __init__(self, main: nn.Module, num_in: int, num_out: int, projects: bool) -> None:
        super().__init__()
        self.main = main
        projection = [SamePaddingConv(num_in, num_out, 1)] if projects else []
        self.shortcut = nn.Sequential(*projection, nn.BatchNorm1d(num_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.shortcut(x))


class InceptionModule(nn.Module):
    """Parallel convolutions after a bottleneck, and max pooling: (B, C, L) -> (B, 4 width, L).

    4 width is for the usual three kernels.
    """

    def __init__(self, num_in: int, width: int, kernels: Sequence[int]) -> None:
        super().__init__()
        narrow = num_in > 1  # a single channel needs no bottleneck
        self.bottleneck = SamePaddingConv(num_in, width, 1) if narrow else nn.Identity()
        num_narrow = width if narrow else num_in
        self.convs = nn.ModuleList(SamePaddingConv(num_narrow, width, kernel) for kernel in kernels)
        self.pooled = nn.Sequential(nn.MaxPool1d(3, 1, 1), SamePaddingConv(num_in, width, 1))
        self.norm = nn.BatchNorm1d(width * (len(kernels) + 1))

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.bottleneck(x)
        branches = [conv(narrow) for conv in self.convs]
        branches.append(self.pooled(x))
        return torch.relu(self.norm(torch.cat(branches, 1)))


def fcn(
    *,
    widths: Counts,
    kernels: Counts,
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """A fully convolutional net (Wang et al. 2017, section II-B).

    Args:
        widths: channels of each convolution.
        kernels: length of each.
        block_dropout: rate after each convolution.
    """
    check_same_length(widths, kernels)
    ins = [common["in_chans"], *widths[:-1]]
    triples = zip(ins, widths, kernels, strict=True)
    stages = [nn.Sequential(*conv_norm(*triple), nn.ReLU()) for triple in triples]
    return build_classifier(build_trunk(stages, block_dropout), widths[-1], num_dims=1, **common)


def resnet1d(
    *,
    widths: Counts,
    kernels: Counts,
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """A residual net (Wang et al. 2017, section II-C).

    Args:
        widths: channels of each residual block.
        kernels: lengths of the convolutions inside a block.
        block_dropout: rate after each block.
    """
    stages = []
    num_in = common["in_chans"]
    for width in widths:
        layers, num_before = [], num_in
        for kernel in kernels:
            layers += [*conv_norm(num_before, width, kernel), nn.ReLU()]
            num_before = width
        stages.append(ResidualBlock(nn.Sequential(*layers[:-1]), num_in, width, num_in != width))
        num_in = width
    return build_classifier(build_trunk(stages, block_dropout), num_in, num_dims=1, **common)


def inception_time(
    *,
    width: Count,
    depth: Count,
    kernels: Counts,
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """One net of InceptionTime (Ismail Fawaz et al. 2020, section 3).

    Args:
        width: channels of each branch of a module. It has a branch for each kernel, and one more.
        depth: number of modules; three modules make a residual block.
        kernels: lengths of the parallel convolutions.
        block_dropout: rate after each residual block.
    """
    if depth < 3 or depth % 3:
        raise UserError(f"depth must be a multiple of 3, got {depth} (…depth=…)")
    stages = []
    num_in, num_out = common["in_chans"], width * (len(kernels) + 1)
    for _ in range(depth // 3):
        ins = (num_in, num_out, num_out)
        modules = [InceptionModule(channels, width, kernels) for channels in ins]
        stages.append(ResidualBlock(nn.Sequential(*modules), num_in, num_out, projects=True))
        num_in = num_out
    return build_classifier(build_trunk(stages, block_dropout), num_out, num_dims=1, **common)


def check_same_length(widths: Sequence[int], kernels: Sequence[int]) -> None:
    """Raises ``UserError`` unless there is one kernel for each width."""
    if len(widths) != len(kernels):
        raise UserError(
            f"widths and kernels must have the same length, got {list(widths)} and {list(kernels)} "
            "(…kernels=…)"
        )
