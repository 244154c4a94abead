"""The CIFAR nets of published distillation tables, under the names that papers use for them.

Their strides suit 32 x 32 inputs. All end in global average pooling, so 28 x 28 and 8 x 8 work too.
The numbers of parameters are those of the published model zoo (CRD, Tian et al. 2020; mdistiller,
Zhao et al. 2022), which a test checks. Weights are initialized as in the original papers. The
ImageNet nets of the tables are timm's (``timm_nets.py``).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Unpack

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import Count, Counts, Four, Positive, Range, ShareBelowOne
from kd_lightning.models.assemble import CommonArguments, build_classifier, build_trunk
from kd_lightning.models.classifier import Classifier


def conv(
    num_in: int, num_out: int, size: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the side (except for the stride); He initialization (fan-out)."""
    layer = nn.Conv2d(num_in, num_out, size, stride, size // 2, groups=groups, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def conv_norm(num_in: int, num_out: int, size: int, stride: int = 1, groups: int = 1) -> list:
    return [conv(num_in, num_out, size, stride, groups), nn.BatchNorm2d(num_out)]


def blocks_per_stage(depth: int, layers_per_block: int, extra: int) -> int:
    """Number of blocks in each of the three stages of a net with this depth.

    Raises:
        UserError: the depth is not ``3 n * layers_per_block + extra``.
    """
    num_blocks, rest = divmod(depth - extra, 3 * layers_per_block)
    if rest or num_blocks < 1:
        raise UserError(
            f"depth must be {3 * layers_per_block}n + {extra} with n >= 1, got {depth} (…depth=…)"
        )
    return num_blocks


class ResidualBlock(nn.Module):
    """relu(main(x) + shortcut(x)): the basic block of He et al. 2016, section 4.2.

    Where the shape changes, the shortcut is a 1 x 1 convolution (option B), as in the model zoo.
    """

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *conv_norm(num_in, num_out, 3, stride), nn.ReLU(), *conv_norm(num_out, num_out, 3)
        )
        same = stride == 1 and num_in == num_out
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*conv_norm(num_in, num_out, 1, stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.shortcut(x))


class PreActivationBlock(nn.Module):
    """The block of wide ResNets (Zagoruyko & Komodakis 2016): norm and ReLU before convolutions.

    Where the shape changes, the input of the shortcut is activated too.
    """

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(num_in), nn.ReLU())
        self.main = nn.Sequential(
            *conv_norm(num_in, num_out, 3, stride), nn.ReLU(), conv(num_out, num_out, 3)
        )
        same = stride == 1 and num_in == num_out
        self.shortcut = None if same else conv(num_in, num_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(x)
        return self.main(activated) + (x if self.shortcut is None else self.shortcut(activated))


def stack_blocks(
    block: Callable[..., nn.Module], num_blocks: int, num_in: int, num_out: int, stride: int
) -> nn.Sequential:
    """A sequence of blocks. The first one changes the shape.

    Args:
        block: (num_in, num_out, stride) -> module.
    """
    first = block(num_in, num_out, stride)
    return nn.Sequential(first, *(block(num_out, num_out, 1) for _ in range(num_blocks - 1)))


def resnet(
    *,
    depth: Count,
    widths: Four,
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """A CIFAR ResNet (He et al. 2016, section 4.2): resnet8 … resnet110, resnet8x4, resnet32x4.

    Args:
        depth: 6n + 2.
        widths: channels of the stem and of the three stages.
        block_dropout: rate after each stage.
    """
    num_blocks = blocks_per_stage(depth, 2, 2)
    stem = nn.Sequential(*conv_norm(common["in_chans"], widths[0], 3), nn.ReLU())
    pairs = zip(widths[:3], widths[1:], (1, 2, 2), strict=True)
    stages = [stack_blocks(ResidualBlock, num_blocks, *pair) for pair in pairs]
    return build_classifier(
        build_trunk(stages, block_dropout, stem=stem), widths[3], num_dims=2, **common
    )


def wide_resnet(
    *,
    depth: Count,
    widen: Count,
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """A wide ResNet (Zagoruyko & Komodakis 2016): wrn_16_2, wrn_40_1, wrn_40_2.

    Args:
        depth: 6n + 4.
        widen: factor on the stages' 16, 32 and 64 channels.
        block_dropout: rate after each stage.
    """
    num_blocks = blocks_per_stage(depth, 2, 4)
    widths = (16, 16 * widen, 32 * widen, 64 * widen)
    pairs = zip(widths[:3], widths[1:], (1, 2, 2), strict=True)
    stages = [stack_blocks(PreActivationBlock, num_blocks, *pair) for pair in pairs]
    stem = conv(common["in_chans"], 16, 3)
    tail = nn.Sequential(nn.BatchNorm2d(widths[3]), nn.ReLU())
    trunk = build_trunk(stages, block_dropout, stem=stem, tail=tail)
    return build_classifier(trunk, widths[3], num_dims=2, **common)


def vgg(
    *,
    widths: Annotated[Sequence[Counts], Range(least=1)],
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """A VGG (Simonyan & Zisserman 2015) with batch norm and one linear layer: vgg8, vgg13.

    Args:
        widths: channels of each convolution, a list for each of the five stages. The side is halved
            before stages 2, 3 and 4.
        block_dropout: rate after each stage.
    """
    stages, num_in = [], common["in_chans"]
    for number, stage_widths in enumerate(widths):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if 1 <= number <= 3 else []
        for width in stage_widths:
            layers += [conv(num_in, width, 3, bias=True), nn.BatchNorm2d(width), nn.ReLU()]
            num_in = width
        stages.append(nn.Sequential(*layers))
    return build_classifier(
        build_trunk(stages, block_dropout), num_in, num_dims=2, min_size=8, **common
    )


class InvertedResidual(nn.Module):
    """Expand, depthwise, project (Sandler et al. 2018); plus the input if it has the same shape."""

    def __init__(self, num_in: int, num_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = num_in * expansion
        self.main = nn.Sequential(
            *conv_norm(num_in, hidden, 1),
            nn.ReLU(),
            *conv_norm(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU(),
            *conv_norm(hidden, num_out, 1),
        )
        self.add = stride == 1 and num_in == num_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x) if self.add else self.main(x)


def mobilenetv2(
    *,
    width: Positive,
    expansion: Count,
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """The model zoo's MobileNetV2 (Sandler et al. 2018), with other strides for 32 x 32.

    Args:
        width: factor on all channels except the 1280 of the last layer; 0.5 in the tables.
        expansion: factor of the hidden layers inside the blocks; 6 in the tables.
        block_dropout: rate after each stage.
    """
    num_in = int(32 * width)
    stem = nn.Sequential(*conv_norm(common["in_chans"], num_in, 3, 2), nn.ReLU())
    stages = []
    for factor, channels, num_blocks, stride in (
        (1, 16, 1, 1),
        (expansion, 24, 2, 1),
        (expansion, 32, 3, 2),
        (expansion, 64, 4, 2),
        (expansion, 96, 3, 1),
        (expansion, 160, 3, 2),
        (expansion, 320, 1, 1),
    ):
        num_out = int(channels * width)
        block = partial(InvertedResidual, expansion=factor)
        stages.append(stack_blocks(block, num_blocks, num_in, num_out, stride))
        num_in = num_out
    tail = nn.Sequential(*conv_norm(num_in, 1280, 1), nn.ReLU())
    return build_classifier(
        build_trunk(stages, block_dropout, stem=stem, tail=tail), 1280, num_dims=2, **common
    )


class ShuffleUnit(nn.Module):
    """The unit of ShuffleNet (Zhang et al. 2018): grouped 1 x 1, shuffle, depthwise, grouped 1 x 1.

    With stride 2 the result is concatenated with the average-pooled input; otherwise the input is
    added.
    """

    def __init__(self, num_in: int, num_out: int, stride: int, groups: int, first: bool) -> None:
        super().__init__()
        self.stride = stride
        num_new = num_out - num_in if stride == 2 else num_out
        hidden = num_new // 4
        # the stem has too few channels for groups (Zhang et al. 2018, section 3.2)
        self.main = nn.Sequential(
            *conv_norm(num_in, hidden, 1, groups=1 if first else groups),
            nn.ReLU(),
            nn.ChannelShuffle(1 if first else groups),
            *conv_norm(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU(),
            *conv_norm(hidden, num_new, 1, groups=groups),
        )
        self.shrink = nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return torch.relu(torch.cat([self.main(x), self.shrink(x)], 1))
        return torch.relu(self.main(x) + x)


def shufflenetv1(
    *,
    groups: Count,
    widths: Four,
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """The model zoo's ShuffleNet (Zhang et al. 2018), with a 1 x 1 stem for 32 x 32.

    Args:
        groups: of the 1 x 1 convolutions; 3 in the tables.
        widths: channels of the stem and of the three stages, which have 4, 8 and 4 units.
        block_dropout: rate after each stage.
    """
    stem = nn.Sequential(*conv_norm(common["in_chans"], widths[0], 1), nn.ReLU())
    stages = []
    for number, num_units in enumerate((4, 8, 4)):
        num_in, num_out = widths[number], widths[number + 1]
        units = [ShuffleUnit(num_in, num_out, 2, groups, first=number == 0)]
        for _ in range(num_units - 1):
            units.append(ShuffleUnit(num_out, num_out, 1, groups, first=False))
        stages.append(nn.Sequential(*units))
    return build_classifier(
        build_trunk(stages, block_dropout, stem=stem), widths[3], num_dims=2, **common
    )


class ShuffleV2Unit(nn.Module):
    """The unit of ShuffleNetV2 (Ma et al. 2018): half of the channels are transformed.

    With stride 2 both branches get all channels, and both halve the side.
    """

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = num_out // 2
        self.main = nn.Sequential(
            *conv_norm(num_in if stride == 2 else half, half, 1),
            nn.ReLU(),
            *conv_norm(half, half, 3, stride, groups=half),
            *conv_norm(half, half, 1),
            nn.ReLU(),
        )
        self.other = nn.Identity()
        if stride == 2:
            self.other = nn.Sequential(
                *conv_norm(num_in, num_in, 3, 2, groups=num_in),
                *conv_norm(num_in, half, 1),
                nn.ReLU(),
            )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x, x
        if self.stride == 1:
            first, second = x.chunk(2, 1)
        return self.shuffle(torch.cat([self.other(first), self.main(second)], 1))


def shufflenetv2(
    *,
    widths: tuple[Count, Count, Count, Count, Count],
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """The model zoo's ShuffleNetV2 (Ma et al. 2018), with a 1 x 1 stem for 32 x 32.

    Args:
        widths: channels of the stem, of the three stages (4, 8 and 4 units), and of the last layer.
        block_dropout: rate after each stage.
    """
    stem = nn.Sequential(*conv_norm(common["in_chans"], widths[0], 1), nn.ReLU())
    triples = zip((4, 8, 4), widths[:3], widths[1:4], strict=True)
    stages = [stack_blocks(ShuffleV2Unit, *triple, 2) for triple in triples]
    tail = nn.Sequential(*conv_norm(widths[3], widths[4], 1), nn.ReLU())
    trunk = build_trunk(stages, block_dropout, stem=stem, tail=tail)
    return build_classifier(trunk, widths[4], num_dims=2, **common)
