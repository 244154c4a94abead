"""A rectangle of each image of a batch, resized to one size, as torchvision resizes one image.

Bilinear with antialiasing: every pixel is a mean of those below a triangle. torch resizes bytes in
whole numbers: weights of 15 bits, first along rows, then along columns, rounded to bytes between.
The same is done here for a whole batch on other devices than a CPU, and gives the same bytes: a GPU
shows a net what any CPU would. torchvision asks torch for this on a CPU with AVX2; without, it
calculates in fractions, and its bytes may differ by one.

Dimensions: B batch, C channels, H height, W width, S side of the result, K pixels below a triangle.
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
BITS = 15  # of a weight
MOST_BITS = 22  # after the point, of weights that are all small


@dataclass(frozen=True)
class Rectangles:
    """One in each image, in whole pixels."""

    top: Int[Tensor, "B"]
    left: Int[Tensor, "B"]
    height: Int[Tensor, "B"]
    width: Int[Tensor, "B"]


def resized_crops(
    x: Images | Sequence[Image], crops: Rectangles, size: int
) -> Num[Tensor, "B C S S"]:
    """The rectangles, resized to squares of side ``size``; bytes stay bytes.

    On a CPU the fastest layout of ``x`` is with its channels last in memory, and the result has it.

    Args:
        x: a batch; or images of any sizes, on the CPU.
    """
    if isinstance(x, Tensor) and x.device.type != "cpu":
        return resized_together(x, crops, size)
    places = torch.stack([crops.top, crops.left, crops.height, crops.width], dim=1).tolist()
    parts = [
        image[:, :, top : top + height, left : left + width]
        for image, (top, left, height, width) in zip(batches_of_one(x), places, strict=True)
    ]
    # one by one: several times as fast here. Not by torchvision, which calls the same function but
    # loses sight of the layout on the way: twice the time
    resized = functools.partial(F.interpolate, size=(size, size), mode="bilinear", antialias=True)
    return torch.cat([resized(part) for part in parts])


def batches_of_one(x: Images | Sequence[Image]) -> Iterable[Num[Tensor, "1 C H W"]]:
    """Each image as a batch, without a copy, and so that torch sees where channels are last."""
    if isinstance(x, Tensor):
        return x.split(1)
    # unsqueeze(0) would state a step to the next image by which channels are not last
    return (image.permute(1, 2, 0).unsqueeze(0).permute(0, 3, 1, 2) for image in x)


def resized_together(x: Images, crops: Rectangles, size: int) -> Num[Tensor, "B C S S"]:
    """What ``resized_crops`` gives, by operations on the whole batch."""
    x = resized_along(x, 3, crops.left, crops.width, size)
    return resized_along(x, 2, crops.top, crops.height, size)


def resized_along(
    x: Images, dim: int, start: Int[Tensor, "B"], length: Int[Tensor, "B"], size: int
) -> Images:
    """One dimension: of ``length`` pixels from ``start`` on, ``size`` are made."""
    most = math.ceil(2 * max(x.shape[dim] / size, 1))
    places, weights = triangles(length, size, most)
    places = (places + start.view(-1, 1, 1)).clamp_max(x.shape[dim] - 1)
    shape, along = list(x.shape), [len(x), 1, 1, 1]
    shape[dim] = along[dim] = size

    def mean(weights: Num[Tensor, "B S K"], total: Tensor | float) -> Images:
        for place, weight in zip(places.unbind(2), weights.unbind(2), strict=True):
            total = total + x.gather(dim, place.view(along).expand(shape)) * weight.view(along)
        return total

    if x.dtype != torch.uint8:
        return mean(weights.to(x.dtype), 0.0)
    weights, bits = whole_numbers(weights)
    bits = bits.view(-1, 1, 1, 1)
    half = 1 << (bits - 1)  # so that what is cut off is rounded
    return (mean(weights, half) >> bits).clamp(0, 255).to(torch.uint8)


def triangles(
    length: Int[Tensor, "B"], size: int, most: int
) -> tuple[Int[Tensor, "B S K"], Float[Tensor, "B S K"]]:
    """For each new pixel the old ones that it is a mean of, and their weights.

    Args:
        length: of old pixels, L.
        size: new ones.
        most: K, pixels that the widest triangle covers.
    """
    scale = length.double().view(-1, 1, 1) / size
    reach = scale.clamp_min(1)
    centre = scale * (torch.arange(size, device=length.device).view(1, -1, 1) + 0.5)
    first = (centre - reach + 0.5).long().clamp_min(0)
    places = first + torch.arange(most, device=length.device)
    weights = (1 - ((places - centre + 0.5) * (1 / reach)).abs()).clamp_min(0)
    weights = weights * (places < length.view(-1, 1, 1))
    return places, weights / sum(weights.unbind(2)).unsqueeze(2)  # in this order everywhere


def whole_numbers(
    weights: Float[Tensor, "B S K"],
) -> tuple[Int[Tensor, "B S K"], Int[Tensor, "B"]]:
    """The weights times a power of two, so that an image's largest has ``BITS`` bits; the power."""
    powers = torch.arange(1, MOST_BITS + 1, device=weights.device)
    largest = weights.amax((1, 2)).unsqueeze(1)
    bits = ((largest * (1 << powers) + 0.5).long() < 1 << BITS).sum(1)
    numbers = (weights * (1 << bits).view(-1, 1, 1) + 0.5).int()
    return numbers, bits.int()
