"""Augmentation of whole batches, with separate random numbers for each sample.

torchvision draws random parameters once per call, so it must be called sample by sample. Here the
parameters of a whole batch are drawn at once: random number k of sample i is a hash of (stream, i,
k). The result for a sample is therefore bit for bit the same in any batch and on any device. Each
transform draws from the distribution of the torchvision transform with the same name.

Dimensions: B batch, C channels, H height, W width.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.sample_random import PerSampleRandom
from kd_lightning.data.resampling import Image, Images, Rectangles, resized_crops

# On a CPU, images larger than this number of bytes are flipped one by one, which takes a tenth of
# the time for photographs.
ONE_BY_ONE = 4096
TRIES = 10  # attempts to draw a rectangle that fits into the image, as in torchvision


class BatchTransform(ABC):
    """A transform of whole batches: (x, rng) -> transformed x.

    Attributes:
        takes_any_size: whether it also accepts a sequence of images (C, H, W) of different sizes.
    """

    takes_any_size: bool = False

    @abstractmethod
    def __call__(self, x: Images, rng: PerSampleRandom) -> Images:
        """Transforms each sample with its own random numbers."""

    def seeded(self, x: Images, seed: int) -> Images:
        """Transforms a batch by the random numbers of a seed in [0, 2^63)."""
        return self(x, PerSampleRandom(seed, torch.arange(len(x), device=x.device)))


class Compose(BatchTransform):
    """Applies several batch transforms, one after the other."""

    def __init__(self, transforms: Sequence[BatchTransform]) -> None:
        if others := [t for t in transforms if not isinstance(t, BatchTransform)]:
            raise UserError(
                f"{type(others[0]).__name__} transforms single samples: compose it with "
                "torchvision.transforms.v2.Compose (data.augmentation=…)"
            )
        self.transforms = list(transforms)
        self.takes_any_size = bool(transforms) and self.transforms[0].takes_any_size

    def __call__(self, x: Images | Sequence[Image], rng: PerSampleRandom) -> Images:
        for transform in self.transforms:
            x = transform(x, rng)
        return x


class RandomCrop(BatchTransform):
    """Crops a square at a random position of each image.

    Args:
        size: side of the square.
        padding: black pixels that are first added on each side of the image.
    """

    def __init__(self, size: int, padding: int = 0) -> None:
        self.size = size
        self.padding = padding

    def __call__(self, x: Images, rng: PerSampleRandom) -> Images:
        num_positions = [side + 2 * self.padding - self.size + 1 for side in x.shape[2:]]
        if min(num_positions) < 1:
            raise UserError(
                f"a crop of {self.size} is larger than images of {tuple(x.shape[2:])} with "
                f"{self.padding} pixels added on each side (data.augmentation.…size=…)"
            )
        squares = F.pad(x, [self.padding] * 4)
        for dim in (2, 3):  # a view of all possible squares
            squares = squares.unfold(dim, self.size, 1)
        top, left = (rng.integers(count) for count in num_positions)
        return squares[torch.arange(len(x), device=x.device), :, top, left]


class RandomResizedCrop(BatchTransform):
    """Crops a random rectangle of each image and resizes it to a square (Szegedy et al. 2015,
    "Going Deeper with Convolutions").

    For uint8 images the result on any device equals torchvision's result on a CPU with AVX2.

    Args:
        size: side of the square.
        scale: smallest and largest area of the rectangle, as a fraction of the image area.
        ratio: smallest and largest width / height of the rectangle.
    """

    takes_any_size = True

    def __init__(
        self,
        size: int,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
    ) -> None:
        if size < 1:
            raise UserError(f"the size of a crop must be >= 1, got {size} (…size=…)")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(
                f"expected the smallest and the largest area, 0 < smallest <= largest <= 1, got "
                f"{list(scale)} (…scale=…)"
            )
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
            raise UserError(
                f"expected the smallest and the largest ratio, 0 < smallest <= largest, got "
                f"{list(ratio)} (…ratio=…)"
            )
        self.size = size
        self.scale = scale
        self.ratio = ratio

    def __call__(self, x: Images | Sequence[Image], rng: PerSampleRandom) -> Images:
        if isinstance(x, Tensor):
            height, width = (x.new_full((len(x),), side, dtype=torch.long) for side in x.shape[2:])
        else:
            height, width = torch.tensor([image.shape[1:] for image in x]).unbind(1)
        return resized_crops(x, self.draw_rectangles(height, width, rng), self.size)

    def draw_rectangles(
        self, height: Int[Tensor, "B"], width: Int[Tensor, "B"], rng: PerSampleRandom
    ) -> Rectangles:
        """A rectangle of each image. If no attempt fits, the largest allowed one in the centre."""
        # float64: in float32, devices that round differently would sometimes differ by a pixel
        u = rng.uniforms(2 * TRIES).double()
        area = height * width * to_range(u[::2], *self.scale)
        ratio = to_range(u[1::2], *(math.log(limit) for limit in self.ratio)).exp()
        h, w = (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()
        fits = (h > 0) & (h <= height) & (w > 0) & (w <= width)
        found, tall, wide = first_that_fits(fits, h, w)
        shape = (width.double() / height).clamp(*self.ratio)
        tall = torch.where(found, tall, (width / shape).round().long().minimum(height))
        wide = torch.where(found, wide, (height * shape).round().long().minimum(width))
        top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
        return Rectangles(
            torch.where(found, top, (height - tall) // 2),
            torch.where(found, left, (width - wide) // 2),
            tall,
            wide,
        )


class Resize(BatchTransform):
    """Resizes the short side to ``size`` and keeps the aspect ratio.

    For uint8 images, GPU and CPU results differ by at most 1.

    Args:
        size: new length of the short side.
        interpolation: a name in torchvision's ``InterpolationMode``.
    """

    def __init__(self, size: int, interpolation: str = "bilinear") -> None:
        self.size = size
        self.interpolation = InterpolationMode(interpolation)

    def __call__(self, x: Images, rng: PerSampleRandom) -> Images:
        return tv.resize(x, [self.size], interpolation=self.interpolation, antialias=True)


class CenterCrop(BatchTransform):
    """Crops the square of side ``size`` from the centre."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, x: Images, rng: PerSampleRandom) -> Images:
        # clone: a loading process would send a view together with all of x
        return tv.center_crop(x, [self.size, self.size]).clone()


class RandomHorizontalFlip(BatchTransform):
    """Flips each image left to right with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, x: Images, rng: PerSampleRandom) -> Images:
        flipped = rng.uniform() < self.p
        if x.device.type == "cpu" and x[:1].nbytes > ONE_BY_ONE:
            pairs = zip(x.split(1), flipped.tolist(), strict=True)
            return torch.cat(
                [image.flip(-1) if is_flipped else image for image, is_flipped in pairs]
            )
        return torch.where(flipped.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


class RandomErasing(BatchTransform):
    """Fills a random rectangle of each image with one value, with probability ``p``.

    Args:
        p: probability.
        scale: smallest and largest area of the rectangle, as a fraction of the image area.
        ratio: smallest and largest height / width of the rectangle.
        value: new value of the pixels.
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
        self.log_ratio = [math.log(limit) for limit in ratio]
        self.value = value

    def __call__(self, x: Images, rng: PerSampleRandom) -> Images:
        height, width = x.shape[2:]
        chosen = rng.uniform() < self.p
        # float64: in float32, devices that round differently would sometimes differ by a pixel
        u = rng.uniforms(2 * TRIES).double()
        area = height * width * to_range(u[::2], *self.scale)
        ratio = to_range(u[1::2], *self.log_ratio).exp()
        h, w = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        found, tall, wide = first_that_fits((h < height) & (w < width), h, w)
        tall, wide = tall * found, wide * found
        top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
        inside = [
            (position >= first.unsqueeze(1)) & (position < (first + count).unsqueeze(1))
            for position, first, count in (
                (torch.arange(height, device=x.device), top, tall),
                (torch.arange(width, device=x.device), left, wide),
            )
        ]
        erased = inside[0].unsqueeze(2) & inside[1].unsqueeze(1) & (chosen & found).view(-1, 1, 1)
        return x.masked_fill(erased.unsqueeze(1), self.value)


def first_that_fits(
    fits: Bool[Tensor, "T B"], h: Int[Tensor, "T B"], w: Int[Tensor, "T B"]
) -> tuple[Bool[Tensor, "B"], Int[Tensor, "B"], Int[Tensor, "B"]]:
    """Whether one of the T rectangles of a sample fits; height and width of the first that does."""
    first = fits.long().argmax(0, keepdim=True)
    return fits.any(0), h.gather(0, first)[0], w.gather(0, first)[0]


def to_range(u: Float[Tensor, "..."], low: float, high: float) -> Float[Tensor, "..."]:
    """Maps ``u`` from [0, 1) to [low, high)."""
    return low + (high - low) * u
