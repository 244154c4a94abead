"""Crops a rectangle of each image of a batch and resizes it, with the result of torchvision.

The method is bilinear with antialiasing: each new pixel is a mean of old pixels with triangular
weights. For bytes, torch calculates on a CPU with integers: weights of 15 bits, first along rows,
then along columns, with rounding to bytes in between. On other devices this module does the same
for a whole batch, so a GPU gives exactly the bytes of a CPU. torchvision uses torch's integer
method only on CPUs with AVX2; on others it calculates in floating point, and its bytes may differ
by 1.

Dimensions: B batch, C channels, H height, W width, S side of the result, K pixels in a triangle.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor
from torch.nn import functional as F

Image = Num[Tensor, "C H W"]
Images = Num[Tensor, "B C H W"]
BITS = 15  # bits of a weight
MAX_SHIFT = 22  # a weight is multiplied by at most 2^22


@dataclass(frozen=True)
class Rectangles:
    """One rectangle in each image, in whole pixels."""

    top: Int[Tensor, "B"]
    left: Int[Tensor, "B"]
    height: Int[Tensor, "B"]
    width: Int[Tensor, "B"]


def resized_crops(
    x: Images | Sequence[Image], crops: Rectangles, size: int
) -> Num[Tensor, "B C S S"]:
    """Resizes the rectangles to squares of side ``size``; uint8 stays uint8.

    On a CPU, the fastest memory layout of ``x`` is channels last. The result has the layout of
    ``x``.

    Args:
        x: a batch; or, on the CPU, images of different sizes.
    """
    if isinstance(x, Tensor) and x.device.type != "cpu":
        return resize_whole_batch(x, crops, size)
    rectangles = torch.stack([crops.top, crops.left, crops.height, crops.width], dim=1).tolist()
    parts = [
        image[:, :, top : top + height, left : left + width]
        for image, (top, left, height, width) in zip(batches_of_one(x), rectangles, strict=True)
    ]
    # On a CPU, one by one is several times as fast. torchvision calls the same function, but loses
    # the memory layout on the way, which takes twice the time.
    resized = functools.partial(F.interpolate, size=(size, size), mode="bilinear", antialias=True)
    return torch.cat([resized(part) for part in parts])


def batches_of_one(x: Images | Sequence[Image]) -> Iterable[Num[Tensor, "1 C H W"]]:
    """Each image as a batch, without a copy; the channels-last layout stays visible to torch."""
    if isinstance(x, Tensor):
        return x.split(1)
    # unsqueeze(0) would set a batch stride that hides the channels-last layout
    return (image.permute(1, 2, 0).unsqueeze(0).permute(0, 3, 1, 2) for image in x)


def resize_whole_batch(x: Images, crops: Rectangles, size: int) -> Num[Tensor, "B C S S"]:
    """The result of ``resized_crops``, with operations on the whole batch."""
    x = resize_dim(x, 3, crops.left, crops.width, size)
    return resize_dim(x, 2, crops.top, crops.height, size)


def resize_dim(
    x: Images, dim: int, start: Int[Tensor, "B"], length: Int[Tensor, "B"], size: int
) -> Images:
    """Resizes the ``length`` pixels from ``start`` on to ``size`` pixels, along one dimension."""
    max_pixels = math.ceil(2 * max(x.shape[dim] / size, 1))
    positions, weights = triangle_weights(length, size, max_pixels)
    positions = (positions + start.view(-1, 1, 1)).clamp_max(x.shape[dim] - 1)
    shape, along = list(x.shape), [len(x), 1, 1, 1]
    shape[dim] = along[dim] = size

    def mean(weights: Num[Tensor, "B S K"], total: Tensor | float) -> Images:
        for position, weight in zip(positions.unbind(2), weights.unbind(2), strict=True):
            total = total + x.gather(dim, position.view(along).expand(shape)) * weight.view(along)
        return total

    if x.dtype != torch.uint8:
        return mean(weights.to(x.dtype), 0.0)
    weights, shift = integer_weights(weights)
    shift = shift.view(-1, 1, 1, 1)
    half = 1 << (shift - 1)  # so that the right shift rounds
    return (mean(weights, half) >> shift).clamp(0, 255).to(torch.uint8)


def triangle_weights(
    length: Int[Tensor, "B"], size: int, max_pixels: int
) -> tuple[Int[Tensor, "B S K"], Float[Tensor, "B S K"]]:
    """For each new pixel: the positions of the old pixels that it is a mean of, and their weights.

    Args:
        length: number of old pixels.
        size: number of new pixels, S.
        max_pixels: number of old pixels in the widest triangle, K.
    """
    scale = length.double().view(-1, 1, 1) / size
    reach = scale.clamp_min(1)
    centre = scale * (torch.arange(size, device=length.device).view(1, -1, 1) + 0.5)
    first = (centre - reach + 0.5).long().clamp_min(0)
    positions = first + torch.arange(max_pixels, device=length.device)
    weights = (1 - ((positions - centre + 0.5) * (1 / reach)).abs()).clamp_min(0)
    weights = weights * (positions < length.view(-1, 1, 1))
    # the sum is taken in a fixed order, so that it is the same on every device
    return positions, weights / sum(weights.unbind(2)).unsqueeze(2)


def integer_weights(
    weights: Float[Tensor, "B S K"],
) -> tuple[Int[Tensor, "B S K"], Int[Tensor, "B"]]:
    """The weights times 2^shift as integers, and ``shift``.

    The shift is chosen for each image such that its largest weight has ``BITS`` bits.
    """
    shifts = torch.arange(1, MAX_SHIFT + 1, device=weights.device)
    largest = weights.amax((1, 2)).unsqueeze(1)
    shift = ((largest * (1 << shifts) + 0.5).long() < 1 << BITS).sum(1)
    integers = (weights * (1 << shift).view(-1, 1, 1) + 0.5).int()
    return integers, shift.int()
