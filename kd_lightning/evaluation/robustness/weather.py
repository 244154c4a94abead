"""Fog and snow over images (H, W, C), float in [0, 1]."""

import numpy as np

from kd_lightning.evaluation.robustness.blurs import Image, convolve, motion_kernel, zoom

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


def plasma(size: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """A random cloud (size, size) in [0, 1], by the diamond-square algorithm on a torus.

    Args:
        size: a power of two.
        decay: what is added at each level is smaller by the square of this factor.
    """
    field = np.zeros((size, size))
    step, height = size, 1.0

    def middle(*neighbours: np.ndarray) -> np.ndarray:
        mean = sum(neighbours) / 4
        return mean + rng.uniform(-height, height, mean.shape)

    while step > 1:
        half = step // 2
        corners = field[::step, ::step]
        right = np.roll(corners, -1, 1)
        centres = middle(corners, right, np.roll(corners, -1, 0), np.roll(right, -1, 0))
        field[half::step, half::step] = centres
        below = np.roll(corners, -1, 0)
        field[::step, half::step] = middle(corners, right, centres, np.roll(centres, 1, 0))
        field[half::step, ::step] = middle(corners, below, centres, np.roll(centres, 1, 1))
        step, height = half, height / decay**2
    field -= field.min()
    return field / field.max()


def fog(image: Image, amount: float, decay: float, rng: np.random.Generator) -> Image:
    """A cloud is added; then the brightest value is that of the image again."""
    rows, columns = image.shape[:2]
    size = 2 ** max(1, (max(rows, columns) - 1).bit_length())
    cloud = plasma(size, decay, rng)[:rows, :columns, None]
    return (image + amount * cloud) * image.max() / (image.max() + amount)


def snow(
    image: Image,
    mean: float,
    std: float,
    size: float,
    threshold: float,
    radius: int,
    sigma: float,
    share: float,
    rng: np.random.Generator,
) -> Image:
    """Flakes fall over a whitened image.

    Args:
        mean, std: of the noise that the flakes are made of.
        size: factor by which the noise is magnified.
        threshold: what is below it is no flake.
        radius, sigma: of the flakes' motion blur.
        share: of the image; the rest is its whitened copy.
    """
    noise = zoom(rng.normal(mean, std, size=(*image.shape[:2], 1)), size)
    flakes = np.where(noise < threshold, 0, noise).clip(0, 1)
    flakes = convolve(flakes, motion_kernel(radius, sigma, rng.uniform(-135, -45)))
    white = np.maximum(image, 1.5 * grey(image) + 0.5)
    return share * image + (1 - share) * white + flakes + np.rot90(flakes, 2)


def grey(image: Image) -> Image:
    """The brightness, (H, W, 1)."""
    channels = image.shape[2]
    weights = LUMA if channels == 3 else np.full(channels, 1 / channels)
    return (image @ np.asarray(weights))[..., None]
