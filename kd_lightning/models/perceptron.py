"""A multilayer perceptron on the flattened input: images or series, all of one size."""

from itertools import pairwise
from typing import Unpack

from torch import nn

from kd_lightning.base.ranges import Count, Counts, ShareBelowOne
from kd_lightning.models.assemble import CommonArguments, build_classifier
from kd_lightning.models.classifier import Classifier, check_rate


def mlp(
    *,
    num_inputs: Count,
    widths: Counts,
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """Linear layers, each with ReLU and dropout.

    Args:
        num_inputs: number of channels times all sizes of the input.
        widths: of the hidden layers, one or more.
        block_dropout: rate after each hidden layer.
    """
    check_rate("block_dropout", block_dropout)
    layers: list[nn.Module] = [nn.Flatten()]
    for num_in, num_out in pairwise([num_inputs, *widths]):
        layers += [nn.Linear(num_in, num_out), nn.ReLU(), nn.Dropout(block_dropout)]
    return build_classifier(nn.Sequential(*layers), widths[-1], num_dims=None, **common)
