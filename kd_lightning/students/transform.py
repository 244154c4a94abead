"""How one sample becomes what a student takes, as val and test of its run saw it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kd_lightning.data.loading.resizing import Resizing, to_channels


def transform_of(given: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """The transform of ``Student.transform``.

    Args:
        given: the student's ``info["input"]``.
    """
    if given["kind"] == "series":
        return unchanged
    values = [given[key] for key in ("size", "resize", "crop_fraction", "interpolation")]
    return ImageTransform(given["channels"], Resizing(*values))


def unchanged(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class ImageTransform:
    """Gives an image the channels and the size that a student takes.

    Args:
        channels: 1: colours become grey; 3: grey becomes colours.
        resizing: of images of any size to squares.
    """

    channels: int
    resizing: Resizing

    def __call__(self, image: Tensor) -> Tensor:
        resized = self.resizing(to_channels(image, self.channels))
        # bicubic resizing overshoots, and torchvision clips it for bytes alone
        return resized.clamp(0, 1) if resized.is_floating_point() else resized
