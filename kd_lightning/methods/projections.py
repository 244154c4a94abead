"""Small networks on the features of a net: projections, encoders, decoders."""

from collections.abc import Sequence

import torch
from torch import nn

from kd_lightning.models.modes import in_mode


def two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, ReLU, Linear: (B, inputs) -> (B, outputs)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


@torch.no_grad()
def num_features(net: nn.Module, input_shape: Sequence[int]) -> int:
    """D, the width of the net's features, seen on one sample of zeros."""
    with in_mode(net, "eval"):
        return net(torch.zeros(1, *input_shape)).features.shape[1]
