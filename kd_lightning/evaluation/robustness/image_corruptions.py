"""Corruptions of images in five severities: Hendrycks & Dietterich 2019, arXiv 1903.12261.

The kinds and their parameters are those of ImageNet-C, and for sides up to ``SMALL`` pixels those
of CIFAR-10-C; all lengths are in pixels, except where the papers' code scales them. Of the paper's
15 kinds ``frost`` is left out: it needs the authors' photographs of ice. The published data are not
reproduced bit for bit: random numbers, the borders of blurs, and how pixels are interpolated
differ, and nothing is saved as JPEG.

Images are (H, W, C), float in [0, 1], with any number of channels.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image as Picture
from scipy import ndimage

from kd_lightning.evaluation.robustness.blurs import (
    Image,
    convolve,
    disk_kernel,
    glass_blur,
    motion_kernel,
    zoom_blur,
)
from kd_lightning.evaluation.robustness.severity_levels import CIFAR_10_C, IMAGENET_C
from kd_lightning.evaluation.robustness.weather import fog, snow

SMALL = 64  # pixels
SEVERITIES = (1, 2, 3, 4, 5)
Random = np.random.Generator


def gaussian_noise(image: Image, std: float, rng: Random) -> Image:
    return image + rng.normal(0, std, image.shape)


def shot_noise(image: Image, photons: float, rng: Random) -> Image:
    """Noise of counting, where white is ``photons`` photons on average."""
    return rng.poisson(image * photons) / photons


def impulse_noise(image: Image, share: float, rng: Random) -> Image:
    """This share of the values becomes 0 or 1."""
    is_hit = rng.random(image.shape) < share
    return np.where(is_hit, rng.random(image.shape) < 0.5, image)


def defocus_blur(image: Image, radius: float, softness: float, rng: Random) -> Image:
    return convolve(image, disk_kernel(radius, softness))


def motion_blur(image: Image, radius: int, sigma: float, rng: Random) -> Image:
    return convolve(image, motion_kernel(radius, sigma, rng.uniform(-45, 45)))


def blur_by_zoom(image: Image, end: float, step: float, rng: Random) -> Image:
    """Magnifications from 1 to ``end``."""
    return zoom_blur(image, np.arange(1, end, step))


def brightness(image: Image, amount: float, rng: Random) -> Image:
    """``amount`` is added to the value of each pixel, V in HSV; hue and saturation stay."""
    value = image.max(axis=2, keepdims=True)
    brighter = (value + amount).clip(0, 1)
    return np.where(value > 0, image * brighter / np.where(value > 0, value, 1), brighter)


def contrast(image: Image, factor: float, rng: Random) -> Image:
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * factor + mean


def elastic_transform(
    image: Image, amount: float, sigma: float, affine: float, rng: Random
) -> Image:
    """A random affine map, then a random smooth displacement. All arguments are in units of the
    side of the image.

    Args:
        amount: factor of the displacement.
        sigma: of the Gaussian that smooths the displacement.
        affine: how far the map moves three points.
    """
    side = min(image.shape[:2])
    centre, third = np.array(image.shape[:2]) // 2, side // 3
    points = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + rng.uniform(-affine * side, affine * side, points.shape)
    ones = np.ones((3, 1))
    to_source = np.linalg.solve(np.hstack([moved, ones]), np.hstack([points, ones]))
    noise = rng.uniform(-1, 1, size=(2, *image.shape[:2]))
    shift = amount * side * ndimage.gaussian_filter(noise, (0, *[sigma * side] * 2), truncate=3)
    places = np.indices(image.shape[:2]) + shift
    places = np.stack([*places, np.ones(image.shape[:2])], axis=-1) @ to_source
    coordinates = np.moveaxis(places[..., :2], -1, 0)
    channels = np.moveaxis(image, 2, 0)
    mapped = [ndimage.map_coordinates(c, coordinates, order=1, mode="mirror") for c in channels]
    return np.stack(mapped, axis=2)


def pixelate(image: Image, factor: float, rng: Random) -> Image:
    """The image is made smaller by this factor, and larger again."""
    height, width = image.shape[:2]
    small = (max(1, int(width * factor)), max(1, int(height * factor)))
    box = Picture.Resampling.BOX
    channels = [Picture.fromarray(c) for c in np.moveaxis(image, 2, 0).astype(np.float32)]
    coarse = [c.resize(small, box).resize((width, height), box) for c in channels]
    return np.stack([np.asarray(c) for c in coarse], axis=2)


def jpeg_compression(image: Image, quality: int, rng: Random) -> Image:
    """Three channels are compressed as a colour image, others each as a grey image."""
    pixels = np.rint(image * 255).astype(np.uint8)
    parts = [pixels] if pixels.shape[2] == 3 else list(np.moveaxis(pixels, 2, 0))
    decoded = [np.atleast_3d(_through_jpeg(part, quality)) for part in parts]
    return np.concatenate(decoded, axis=2) / 255


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Picture.fromarray(pixels).save(file, "JPEG", quality=quality)
    with Picture.open(file) as decoded:
        return np.asarray(decoded)


KINDS: dict[str, Callable[..., Image]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": blur_by_zoom,
    "snow": snow,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}


def corrupt_image(image: Image, kind: str, severity: int, rng: Random) -> Image:
    """An image with a corruption, of the same shape, in [0, 1].

    Args:
        kind: a key of ``KINDS``.
        severity: 1 to 5.
    """
    levels = CIFAR_10_C if max(image.shape[:2]) <= SMALL else IMAGENET_C
    level = levels[kind][severity - 1]
    values = level if isinstance(level, tuple) else (level,)
    return KINDS[kind](image, *values, rng=rng).clip(0, 1)
