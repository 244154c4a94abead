"""The areas of a feature map that matter: the module that finds them, and their mask.

The distinctive-area module of student-oriented refinement (arXiv 2409.18785) has three heads on a
map: how distinctive each cell is (heat, one channel for each class), the size of the area around it
and the offset of the area's centre. One module is used for the maps of student and teacher.

Dimensions: B batch, D channels, C classes, N positions' dimensions (1 or 2), k areas.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.models.map_layers import CONVS

POOLS = {1: F.max_pool1d, 2: F.max_pool2d}


class AreaMaps(NamedTuple):
    """What the module says of a map, for each of its cells.

    Attributes:
        heat: logits; their sigmoid says how distinctive a cell is for a class.
        size: of the area, in cells, > 0.
        offset: of the area's centre from the cell, in cells.
    """

    heat: Float[Tensor, "B C *size"]
    size: Float[Tensor, "B N *size"]
    offset: Float[Tensor, "B N *size"]


class AreaModule(nn.Module):
    """Three heads: a convolution of 3, ReLU, a convolution of 1.

    Sizes go through softplus, and nothing else has a ReLU at its end, so no output is stuck at 0.
    They start at a quarter of the map's sides.

    Args:
        shape: of the map, (D, *size).
        num_classes: C.
    """

    def __init__(self, shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        channels, *size = shape
        conv = CONVS[len(size)]

        def head(num_out: int) -> nn.Sequential:
            return nn.Sequential(
                conv(channels, channels, 3, padding=1), nn.ReLU(), conv(channels, num_out, 1)
            )

        self.heat, self.size, self.offset = map(head, (num_classes, len(size), len(size)))
        with torch.no_grad():
            self.size[-1].bias.copy_(torch.tensor([math.log(math.expm1(n / 4)) for n in size]))

    def forward(self, x: Float[Tensor, "B D *size"]) -> AreaMaps:
        return AreaMaps(
            self.heat(x).float(), F.softplus(self.size(x).float()), self.offset(x).float()
        )


def area_distance(a: AreaMaps, b: AreaMaps) -> Float[Tensor, "B"]:
    """Mean squared difference of heat (after its sigmoid), sizes and offsets, over all elements."""
    a, b = (torch.cat([maps.heat.sigmoid(), *maps[1:]], dim=1).flatten(1) for maps in (a, b))
    return (a - b).square().mean(1)


def class_logits(maps: AreaMaps) -> Float[Tensor, "B C"]:
    """For each class its highest heat."""
    return maps.heat.flatten(2).amax(2)


@torch.no_grad()
def area_mask(maps: AreaMaps, num_areas: int) -> Bool[Tensor, "B 1 *size"]:
    """The cells inside of at least one area. The areas are those of the ``num_areas`` local maxima
    of heat (of 3 cells in each dimension) that are highest, over all classes; of fewer if there are
    fewer. An area has its first and last cell inside of the map, and one cell at least.

    No gradient goes through it: the corners of an area are whole numbers.
    """
    size = maps.heat.shape[2:]
    peak = POOLS[len(size)](maps.heat, 3, stride=1, padding=1)
    heat = maps.heat.masked_fill(maps.heat < peak, -torch.inf).flatten(1)
    highest, index = heat.topk(min(num_areas, heat.shape[1]), dim=1)
    cell = index % math.prod(size)
    inside = highest.isfinite().view(*highest.shape, *[1] * len(size))
    steps = [math.prod(size[n + 1 :]) for n in range(len(size))]
    for n, (length, step) in enumerate(zip(size, steps, strict=True)):
        half = maps.size[:, n].flatten(1).gather(1, cell) / 2
        centre = cell // step % length + maps.offset[:, n].flatten(1).gather(1, cell)
        first, last = ((centre + s).clamp(0, length - 1).round() for s in (-half, half))
        place = torch.arange(length, device=cell.device)
        along = (first.unsqueeze(2) <= place) & (place <= last.unsqueeze(2))
        inside = inside & along.view(*cell.shape, *[1] * n, length, *[1] * (len(size) - n - 1))
    return inside.any(1, keepdim=True)
