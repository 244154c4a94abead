"""Every corruption keeps the form of an image, follows from its seed, and does what it says."""

import colorsys

import numpy as np
import pytest
from scipy import ndimage

from kd_lightning.evaluation.robustness import image_corruptions
from kd_lightning.evaluation.robustness.blurs import disk_kernel, motion_kernel, zoom
from kd_lightning.evaluation.robustness.image_corruptions import KINDS, SEVERITIES, corrupt_image
from kd_lightning.evaluation.robustness.severity_levels import CIFAR_10_C, IMAGENET_C
from kd_lightning.evaluation.robustness.weather import fog, grey, plasma

SHAPES = [(8, 8, 1), (32, 32, 3), (80, 80, 3)]
NOT_RANDOM = {
    *("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"),
}
NOISE = {"gaussian_noise", "shot_noise", "impulse_noise"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(shape: tuple[int, ...]) -> np.ndarray:
    """A smooth random image from 0 to 1."""
    image = ndimage.gaussian_filter(rng().random(shape), (shape[0] / 16, shape[1] / 16, 0))
    return (image - image.min()) / (image.max() - image.min())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_keeps_its_form_and_changes(kind: str, shape: tuple[int, ...]) -> None:
    image = picture(shape)
    before = image.copy()
    for severity in (1, 5):
        result = corrupt_image(image, kind, severity, rng())
        assert result.shape == shape
        assert result.min() >= 0
        assert result.max() <= 1
        assert np.abs(result - image).mean() > 1e-4
    assert (image == before).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_follows_from_the_seed(kind: str) -> None:
    image = picture((32, 32, 3))
    first, again, other = (corrupt_image(image, kind, 3, rng(seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first == other).all() == (kind in NOT_RANDOM)


# The published levels of glass_blur and elastic_transform do not grow evenly.
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"elastic_transform"}))
def test_the_highest_severity_changes_an_image_most(kind: str, shape: tuple[int, ...]) -> None:
    image = picture(shape)
    low, high = (np.abs(corrupt_image(image, kind, s, rng()) - image).mean() for s in (1, 5))
    assert high > low


def test_all_kinds_have_levels_for_both_sizes() -> None:
    for levels in (CIFAR_10_C, IMAGENET_C):
        assert list(levels) == list(KINDS)
        assert {len(level) for level in levels.values()} == {len(SEVERITIES)}
    assert set(NOT_RANDOM) < set(KINDS)


def test_the_size_decides_which_levels_are_used() -> None:
    for side, factor in ((64, 0.15), (65, 0.05)):
        image = picture((side, side, 1))
        result = corrupt_image(image, "contrast", 5, rng())
        assert result.std() == pytest.approx(factor * image.std())


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - NOISE - {"snow", "fog", "brightness"}))
def test_blurs_and_moves_do_not_change_an_even_image(kind: str) -> None:
    image = np.full((32, 32, 3), 51 / 255)
    np.testing.assert_allclose(corrupt_image(image, kind, 5, rng()), image, atol=2e-3)


def test_noise_has_the_size_that_is_published() -> None:
    image = np.full((200, 200, 3), 0.5)
    noisy = image_corruptions.gaussian_noise(image, 0.1, rng())
    assert noisy.std() == pytest.approx(0.1, rel=0.02)
    counted = image_corruptions.shot_noise(image, 60, rng())
    assert counted.std() == pytest.approx((0.5 / 60) ** 0.5, rel=0.02)
    hit = image_corruptions.impulse_noise(image, 0.06, rng())
    assert (hit != 0.5).mean() == pytest.approx(0.06, rel=0.05)
    assert set(np.unique(hit)) == {0, 0.5, 1}
    assert (hit == 1).sum() == pytest.approx((hit == 0).sum(), rel=0.1)


@pytest.mark.parametrize("pixel", [(0.2, 0.4, 0.6), (0.9, 0.1, 0.5), (0.3, 0.3, 0.3), (0, 0, 0)])
def test_brightness_adds_to_the_value_of_hsv(pixel: tuple[float, ...]) -> None:
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.3))
    result = image_corruptions.brightness(np.array(pixel)[None, None], 0.3, rng())
    assert result[0, 0].tolist() == pytest.approx(expected)


def test_the_kernels_of_blurs_sum_to_1() -> None:
    for radius, softness in ((0.3, 0.4), (3, 0.1), (10, 0.5)):
        kernel = disk_kernel(radius, softness)
        assert kernel.sum() == pytest.approx(1)
        np.testing.assert_allclose(kernel, kernel.T)
    assert (disk_kernel(3, 0.1) > 1e-6).sum() == 29  # whole points in a circle of radius 3
    line = motion_kernel(4, 2.0, 0.0)
    assert line.sum() == pytest.approx(1)
    assert np.nonzero(line)[0].tolist() == [8] * 9
    assert line[8, 8] / line[8, 10] == pytest.approx(np.exp(2**2 / (2 * 2**2)))


def test_zoom_magnifies_the_centre() -> None:
    image = np.arange(5.0)[:, None, None] * np.ones((5, 5, 1))
    assert (zoom(image, 1) == image).all()
    assert zoom(image, 2)[:, 2, 0].tolist() == pytest.approx([1, 1.5, 2, 2.5, 3])


def test_pixelate_makes_blocks() -> None:
    image = picture((8, 8, 1))
    blocks = image_corruptions.pixelate(image, 0.5, rng())
    means = image.reshape(4, 2, 4, 2).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(blocks[..., 0], means, atol=1e-6)


def test_a_cloud_is_between_0_and_1_and_smoother_with_more_decay() -> None:
    rough, smooth = plasma(64, 1.4, rng()), plasma(64, 3, rng())
    for cloud in (rough, smooth):
        assert (cloud.min(), cloud.max()) == (0, 1)
    steps = [np.abs(np.diff(cloud)).mean() for cloud in (rough, smooth)]
    assert steps[1] < steps[0] / 2


def test_fog_does_not_outshine_the_image() -> None:
    image = 0.7 * picture((32, 32, 3))
    assert image.min() < fog(image, 2, 2, rng()).max() <= 0.7 + 1e-9


def test_grey_weighs_the_colours() -> None:
    assert grey(np.array([[[1.0, 0, 0], [0, 1, 0]]])).flatten().tolist() == [0.299, 0.587]
    assert grey(np.array([[[0.25]]])).item() == 0.25
