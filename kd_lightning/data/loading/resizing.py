"""How an image of any size becomes the square that the networks get in val and test.

Three ways are in use. ``crop``: the short side is resized, then the centre is cropped, as in the
published results on ImageNet. ``squash``: both sides are resized to the square, so the aspect ratio
changes. ``letterbox``: the long side is resized to the square, and the rest is black. A network
must be tested in the way in which it was trained: the accuracy of another way can be far lower.
"""

from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.interpolations import INTERPOLATIONS
from kd_lightning.base.ranges import Count, ShareAboveZero
from kd_lightning.config.values import check_numbers

WAYS = ("crop", "squash", "letterbox")
WITH_NEAREST = ("nearest", *INTERPOLATIONS)  # torchvision's "nearest", up to a pixel from PIL's


@dataclass(frozen=True)
class Resizing:
    """Resizes an image, or a batch of images of one size, to a square.

    The results for ``crop`` and ``squash`` are those of torchvision's transforms v2, with
    antialiasing. It depends on no file and no data set, so it can be stored as four plain values.

    Args:
        image_size: side of the square, S.
        resize: ``crop``, ``squash`` or ``letterbox``, with black borders.
        crop_fraction: only for ``crop``: the short side is resized to ``image_size /
            crop_fraction`` before the centre is cropped.
        interpolation: ``nearest``, ``nearest-exact``, ``bilinear`` or ``bicubic``.

    Raises:
        UserError: a value is out of range, or unknown.
    """

    image_size: Count
    resize: str = "crop"
    crop_fraction: ShareAboveZero = 0.875
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        check_numbers(Resizing, vars(self), "data")
        if self.resize not in WAYS:
            raise unknown("way to resize", str(self.resize), WAYS, "data.resize")
        if self.interpolation not in WITH_NEAREST:
            name = str(self.interpolation)
            raise unknown("interpolation", name, WITH_NEAREST, "data.interpolation")

    @property
    def side(self) -> int:
        """The side to which an image is resized: the short one, the long one, or both."""
        if self.resize == "crop":
            return round(self.image_size / self.crop_fraction)
        return self.image_size

    def __call__(self, image: UInt8[Tensor, "... C H W"]) -> UInt8[Tensor, "... C S S"]:
        if self.resize == "crop":
            resized = self.resized(image, [self.side])
            return tv.center_crop(resized, [self.image_size, self.image_size])
        if self.resize == "squash":
            return self.resized(image, [self.side, self.side])
        return self._letterboxed(image)

    def _letterboxed(self, image: Tensor) -> Tensor:
        long = max(image.shape[-2:])
        inside = [max(1, round(length * self.side / long)) for length in image.shape[-2:]]
        resized = self.resized(image, inside)
        top, left = ((self.side - length) // 2 for length in inside)
        bottom, right = self.side - inside[0] - top, self.side - inside[1] - left
        return tv.pad(resized, [left, top, right, bottom], fill=0)

    def resized(self, image: Tensor, size: list[int]) -> Tensor:
        """The image with sides (height, width), or with this short side, by ``interpolation``."""
        mode = InterpolationMode(self.interpolation)
        return tv.resize(image, size, interpolation=mode, antialias=True)


def to_channels(image: Tensor, channels: int) -> Tensor:
    """An image (C, H, W) with so many channels: colours become grey, or grey becomes colours.

    Raises:
        UserError: it has another number of channels than 1, 3 and ``channels``.
    """
    if image.shape[0] == channels:
        return image
    if {image.shape[0], channels} != {1, 3}:
        raise UserError(f"the student takes images of {channels} channels, got {image.shape[0]}")
    return tv.rgb_to_grayscale(image) if channels == 1 else tv.grayscale_to_rgb(image)
