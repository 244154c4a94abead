"""Blurs of images: the kernels, and how they are applied. Images are (H, W, C), float in [0, 1].

What reaches over the border of an image sees the image reflected.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage, signal

Image = np.ndarray
DISK_RADIUS = 8  # the least radius of the kernel of a disk


def convolve(image: Image, kernel: np.ndarray) -> Image:
    """Each channel convolved with a kernel (K, K), K odd. The size does not change."""
    reach = len(kernel) // 2
    padded = np.pad(image, [(reach, reach), (reach, reach), (0, 0)], mode="reflect")
    return signal.oaconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))


def disk_kernel(radius: float, softness: float) -> np.ndarray:
    """A disk with a sum of 1, as a lens out of focus makes it of a point.

    Args:
        radius: in pixels.
        softness: sigma in pixels of the Gaussian that smooths the border of the disk.
    """
    reach = int(max(DISK_RADIUS, radius))
    offsets = np.arange(-reach, reach + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(float)
    window = 1 if radius <= DISK_RADIUS else 2
    kernel = ndimage.gaussian_filter(disk, softness, radius=window, mode="mirror")
    return kernel / kernel.sum()


def motion_kernel(radius: int, sigma: float, angle: float) -> np.ndarray:
    """A line with a sum of 1 from the centre in one direction, fading as a Gaussian.

    Args:
        radius: the line has 2 x radius + 1 pixels.
        sigma: of the Gaussian, in pixels.
        angle: in degrees.
    """
    reach = 2 * radius
    steps = np.arange(reach + 1)
    rows, columns = (
        np.rint(steps * turn(np.deg2rad(angle))).astype(int) + reach for turn in (np.sin, np.cos)
    )
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    np.add.at(kernel, (rows, columns), np.exp(-((steps / sigma) ** 2) / 2))
    return kernel / kernel.sum()


def zoom(image: Image, factor: float) -> Image:
    """The centre of an image, magnified bilinearly by ``factor`` >= 1 to the size of the image."""
    rows, columns = (_magnify(length, factor) for length in image.shape[:2])
    channels = np.ascontiguousarray(np.moveaxis(image, 2, 0))  # else the products are slow
    return np.moveaxis(rows @ channels @ columns.T, 0, 2)


def _magnify(length: int, factor: float) -> np.ndarray:
    """The weights of linear interpolation: row i has those of the new pixel i."""
    pixels = np.arange(length)
    centre = (length - 1) / 2
    places = centre + (pixels - centre) / factor
    return np.maximum(0, 1 - np.abs(places[:, None] - pixels))


def zoom_blur(image: Image, factors: Sequence[float]) -> Image:
    """The mean of the image and its magnifications."""
    return np.mean([image, *(zoom(image, factor) for factor in factors)], axis=0)


def glass_blur(
    image: Image, sigma: float, reach: int, times: int, rng: np.random.Generator
) -> Image:
    """Pixels exchange places with near ones, between two Gaussian blurs.

    Args:
        sigma: of the blurs, in pixels.
        reach: number of pixels over which a pixel may move in one exchange.
        times: number of exchanges of each pixel.
    """
    height, width, channels = image.shape
    places = list(range(height * width))
    moves = rng.integers(-reach, reach, size=(times, height, width, 2)).tolist()
    for of_all in moves:
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = of_all[row - 1][column - 1]
                here, there = row * width + column, (row + down) * width + column + right
                places[here], places[there] = places[there], places[here]
    blurred = gaussian_blur(image, sigma).reshape(-1, channels)[places]
    return gaussian_blur(blurred.reshape(image.shape), sigma)


def gaussian_blur(image: Image, sigma: float) -> Image:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")
