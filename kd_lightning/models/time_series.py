"""Nets for time series: any number of channels, any length, global average pooling at the end.

FCN and ResNet are those of Wang, Yan & Oates 2017 ("Time series classification from scratch"),
InceptionTime that of Ismail Fawaz et al. 2020. Left out: InceptionTime's ensemble of five, which is
five runs.
"""

from collections.abc import Sequence
from typing import Unpack

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.models.assemble import Common, assemble, staged
from kd_lightning.models.classifier import Classifier

Series = Float[Tensor, "B C L"]


class SameConv(nn.Conv1d):
    """A convolution that keeps the length, for even kernels too; no bias, Glorot-uniform weights.

    As the papers' framework pads: an even kernel looks one step further ahead than back.
    """

    def __init__(self, num_in: int, num_out: int, kernel: int) -> None:
        super().__init__(num_in, num_out, kernel, bias=False)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Series) -> Series:
        kernel = self.kernel_size[0]
        return super().forward(F.pad(x, ((kernel - 1) // 2, kernel // 2)))


def conv_norm(num_in: int, num_out: int, kernel: int) -> list[nn.Module]:
    return [SameConv(num_in, num_out, kernel), nn.BatchNorm1d(num_out)]


def fcn(
    *,
    widths: Sequence[int],
    kernels: Sequence[int],
    block_dropout: float = 0.0,
    **common: Unpack[Common],
) -> Classifier:
    """A fully convolutional net (Wang et al. 2017).

    Args:
        widths: channels of each convolution.
        kernels: length of each.
        block_dropout: rate after each convolution.
    """
    ins = [common["in_chans"], *widths[:-1]]
    triples = pairs_of(ins, widths, kernels)
    stages = [nn.Sequential(*conv_norm(*triple), nn.ReLU()) for triple in triples]
    return assemble(staged(stages, block_dropout), widths[-1], num_dims=1, **common)


def pairs_of(ins, widths, kernels):
    return zip(ins, widths, kernels, strict=True)
