"""A multilayer perceptron on the flattened input: images, series, anything of a fixed size."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

from torch import nn

from kd_lightning.models.assemble import Common, assemble
from kd_lightning.models.classifier import Classifier, check_rate


def mlp(
    *,
    num_inputs: int,
    widths: Sequence[int],
    block_dropout: float = 0.0,
    **common: Unpack[Common],
) -> Classifier:
    """Linear layers with ReLU.

    Args:
        num_inputs: channels times all sizes of the input.
        widths: of the hidden layers, one or more.
        block_dropout: rate after each hidden layer.
    """
    check_rate("block_dropout", block_dropout)
    layers: list[nn.Module] = [nn.Flatten()]
    for num_in, num_out in pairwise([num_inputs, *widths]):
        layers += [nn.Linear(num_in, num_out), nn.ReLU(), nn.Dropout(block_dropout)]
    return assemble(nn.Sequential(*layers), widths[-1], num_dims=None, **common)
