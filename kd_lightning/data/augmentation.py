"""Augmentation of whole batches, each sample by random numbers of its own.

torchvision draws once for what it is given, so a batch has to go through it sample by sample. Here
all parameters of a batch are drawn at once, by counting: number k of sample i is a hash of (stream,
i, k). So what happens to a sample does not depend on the batch or the device it is in, to the last
bit, and is drawn from the distribution of the transform of the same name in torchvision.

Dimensions: B batch, C channels, H height, W width.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from kd_lightning.base.errors import UserError
from kd_lightning.data.resampling import Image, Images, Rectangles, resized_crops

GOLDEN = 0x9E3779B97F4A7C15  # the step of SplitMix64, whose mixing this is
# bytes of an image, above which a CPU flips one by one: photographs are done in a tenth of the time
ONE_BY_ONE = 4096
TRIES = 10  # for a rectangle that fits, as torchvision has it


class Draws:
    """Random numbers for each sample of a batch, from its own stream.

    Args:
        stream: what all samples share: a seed in [0, 2^63), of the run and the epoch.
        indices: of the samples; on the device where the numbers are wanted.
    """

    def __init__(self, stream: int, indices: Int[Tensor, "B"]) -> None:
        self._start = _mixed(_mixed(indices * _signed(GOLDEN) + stream) + stream)
        self._count = 0

    def uniform(self) -> Float[Tensor, "B"]:
        """The next number of each sample, in [0, 1)."""
        return self.uniforms(1)[0]

    def uniforms(self, count: int) -> Float[Tensor, "count B"]:
        """The next numbers of each sample, in [0, 1)."""
        places = torch.arange(1, count + 1, device=self._start.device).unsqueeze(1)
        bits = _mixed(self._start + (places + self._count) * _signed(GOLDEN))
        self._count += count
        return _shifted(bits, 40).float() * 2.0**-24

    def integers(self, count: int | Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """The next whole number of each sample, in [0, count)."""
        return (self.uniform() * count).long()


def _signed(value: int) -> int:
    """The number that has the lowest 64 bits of ``value``, as tensors have it."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _shifted(bits: Tensor, by: int) -> Tensor:
    """A shift to the right that brings in zeros, as of a number without sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _mixed(bits: Tensor) -> Tensor:
    """SplitMix64's finalizer (Steele et al. 2014), in 64 bits that overflow."""
    bits = (bits ^ _shifted(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shifted(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _shifted(bits, 31)


class BatchTransform(ABC):
    """A transform of whole batches: (x, draws) -> x of the same samples.

    Attributes:
        takes_any_size: it also takes a sequence of images (C, H, W) of any sizes.
    """

    takes_any_size: bool = False

    @abstractmethod
    def __call__(self, x: Images, draws: Draws) -> Images:
        """Transforms each sample by its own random numbers."""

    def seeded(self, x: Images, seed: int) -> Images:
        """Transforms a batch by the random numbers of a seed in [0, 2^63)."""
        return self(x, Draws(seed, torch.arange(len(x), device=x.device)))


class Compose(BatchTransform):
    """One after the other."""

    def __init__(self, transforms: Sequence[BatchTransform]) -> None:
        if odd := [t for t in transforms if not isinstance(t, BatchTransform)]:
            raise UserError(
                f"{type(odd[0]).__name__} transforms single samples: compose it by "
                "torchvision.transforms.v2.Compose (data.augmentation=…)"
            )
        self.transforms = list(transforms)
        self.takes_any_size = bool(transforms) and self.transforms[0].takes_any_size

    def __call__(self, x: Images | Sequence[Image], draws: Draws) -> Images:
        for transform in self.transforms:
            x = transform(x, draws)
        return x


class RandomCrop(BatchTransform):
    """A square of each image, from anywhere in it.

    Args:
        size: its side.
        padding: pixels of black that are added on each side before.
    """

    def __init__(self, size: int, padding: int = 0) -> None:
        self.size = size
        self.padding = padding

    def __call__(self, x: Images, draws: Draws) -> Images:
        room = [side + 2 * self.padding - self.size + 1 for side in x.shape[2:]]
        if min(room) < 1:
            raise UserError(
                f"a crop of {self.size} is larger than images of {tuple(x.shape[2:])} with "
                f"{self.padding} pixels on each side (data.augmentation.…size=…)"
            )
        every = F.pad(x, [self.padding] * 4)  # then all squares there are, as a view
        for dim in (2, 3):
            every = every.unfold(dim, self.size, 1)
        top, left = (draws.integers(count) for count in room)
        return every[torch.arange(len(x), device=x.device), :, top, left]


class RandomResizedCrop(BatchTransform):
    """A random part of each image, resized to a square (Szegedy et al. 2015, "Going Deeper with
    Convolutions"): bytes come out as torchvision makes them on a CPU with AVX2, on any device.

    Args:
        size: side of the square.
        scale: least and largest area of the part, of the image's.
        ratio: least and largest width over height.
    """

    takes_any_size = True

    def __init__(
        self,
        size: int,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
    ) -> None:
        if size < 1:
            raise UserError(f"a side must be >= 1, got {size} (…size=…)")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(
                f"expected the least and the largest area, 0 < least <= largest <= 1, got "
                f"{list(scale)} (…scale=…)"
            )
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
            raise UserError(
                f"expected the least and the largest ratio, 0 < least <= largest, got "
                f"{list(ratio)} (…ratio=…)"
            )
        self.size = size
        self.scale = scale
        self.ratio = ratio

    def __call__(self, x: Images | Sequence[Image], draws: Draws) -> Images:
        if isinstance(x, Tensor):
            height, width = (x.new_full((len(x),), side, dtype=torch.long) for side in x.shape[2:])
        else:
            height, width = torch.tensor([image.shape[1:] for image in x]).unbind(1)
        return resized_crops(x, self.drawn(height, width, draws), self.size)

    def drawn(self, height: Int[Tensor, "B"], width: Int[Tensor, "B"], draws: Draws) -> Rectangles:
        """The part of each image; where no try fits, the largest in the middle that may be."""
        # in float64, or devices that round otherwise would differ by a pixel now and then
        u = draws.uniforms(2 * TRIES).double()
        area = height * width * between(u[::2], *self.scale)
        ratio = between(u[1::2], *(math.log(one) for one in self.ratio)).exp()
        h, w = (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()
        fits = (h > 0) & (h <= height) & (w > 0) & (w <= width)
        found, tall, wide = first_that_fits(fits, h, w)
        shape = (width.double() / height).clamp(*self.ratio)
        tall = torch.where(found, tall, (width / shape).round().long().minimum(height))
        wide = torch.where(found, wide, (height * shape).round().long().minimum(width))
        top, left = draws.integers(height - tall + 1), draws.integers(width - wide + 1)
        return Rectangles(
            torch.where(found, top, (height - tall) // 2),
            torch.where(found, left, (width - wide) // 2),
            tall,
            wide,
        )


class Resize(BatchTransform):
    """The short side becomes ``size``, the other follows. On a GPU the bytes are a CPU's to one."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, x: Images, draws: Draws) -> Images:
        return tv.resize(x, [self.size], antialias=True)


class CenterCrop(BatchTransform):
    """The square of side ``size`` in the middle."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, x: Images, draws: Draws) -> Images:
        return tv.center_crop(x, [self.size, self.size]).clone()  # or all of x is sent along


class RandomHorizontalFlip(BatchTransform):
    """Left becomes right, with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, x: Images, draws: Draws) -> Images:
        flipped = draws.uniform() < self.p
        if x.device.type == "cpu" and x[:1].nbytes > ONE_BY_ONE:
            one_by_one = zip(x.split(1), flipped.tolist(), strict=True)
            return torch.cat([one.flip(-1) if is_due else one for one, is_due in one_by_one])
        return torch.where(flipped.view(-1, 1, 1, 1), x.flip(-1), x)


class RandomErasing(BatchTransform):
    """A rectangle of one value, with probability ``p``.

    Args:
        p: probability.
        scale: least and largest area, of the image's.
        ratio: least and largest height over width.
        value: of the pixels.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: float = 0,
    ) -> None:
        self.p = p
        self.scale = scale
        self.log_ratio = [math.log(one) for one in ratio]
        self.value = value

    def __call__(self, x: Images, draws: Draws) -> Images:
        height, width = x.shape[2:]
        is_due = draws.uniform() < self.p
        # in float64, or devices that round otherwise would differ by a pixel now and then
        u = draws.uniforms(2 * TRIES).double()
        area = height * width * between(u[::2], *self.scale)
        ratio = between(u[1::2], *self.log_ratio).exp()
        h, w = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        found, tall, wide = first_that_fits((h < height) & (w < width), h, w)
        tall, wide = tall * found, wide * found
        top, left = draws.integers(height - tall + 1), draws.integers(width - wide + 1)
        inside = [
            (at >= first.unsqueeze(1)) & (at < (first + count).unsqueeze(1))
            for at, first, count in (
                (torch.arange(height, device=x.device), top, tall),
                (torch.arange(width, device=x.device), left, wide),
            )
        ]
        erased = inside[0].unsqueeze(2) & inside[1].unsqueeze(1) & (is_due & found).view(-1, 1, 1)
        return x.masked_fill(erased.unsqueeze(1), self.value)


def first_that_fits(
    fits: Bool[Tensor, "T B"], h: Int[Tensor, "T B"], w: Int[Tensor, "T B"]
) -> tuple[Bool[Tensor, "B"], Int[Tensor, "B"], Int[Tensor, "B"]]:
    """Of T tries for each sample: whether one fits, and the height and width of the first."""
    first = fits.long().argmax(0, keepdim=True)
    return fits.any(0), h.gather(0, first)[0], w.gather(0, first)[0]


def between(u: Float[Tensor, "..."], low: float, high: float) -> Float[Tensor, "..."]:
    return low + (high - low) * u
