"""Images of any size to squares: crop and squash are torchvision's, letterbox keeps all pixels."""

import pickle

import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.resizing import WITH_NEAREST, Resizing

SHAPES = [(3, 40, 60), (3, 61, 35), (3, 10, 9), (3, 24, 24), (3, 1, 7)]


def image(shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator())


@pytest.mark.parametrize("name", WITH_NEAREST)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fraction", [0.875, 1.0, 0.5])
def test_crop_is_torchvisions_resize_and_centre_crop(shape, fraction, name):
    mode = InterpolationMode(name)
    theirs = v2.Compose([v2.Resize(round(24 / fraction), mode, antialias=True), v2.CenterCrop(24)])
    x = image(shape)
    assert torch.equal(Resizing(24, "crop", fraction, name)(x), theirs(x))


@pytest.mark.parametrize("name", WITH_NEAREST)
@pytest.mark.parametrize("shape", SHAPES)
def test_squash_is_torchvisions_resize_to_a_square(shape, name):
    theirs = v2.Resize((24, 24), InterpolationMode(name), antialias=True)
    x = image(shape)
    assert torch.equal(Resizing(24, "squash", interpolation=name)(x), theirs(x))


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((3, 40, 60), (4, 20), (0, 24)),
        ((3, 60, 40), (0, 24), (4, 20)),
        ((3, 7, 8), (1, 22), (0, 24)),
    ],
)
def test_letterbox_shows_the_whole_image_between_black_borders(shape, rows, columns):
    x = image(shape).clamp_min(1)
    found = Resizing(24, "letterbox")(x)
    inside = found[:, slice(*rows), slice(*columns)]
    assert torch.equal(inside, v2.Resize(inside.shape[1:], antialias=True)(x))
    assert found.shape == (3, 24, 24)
    assert int((found == 0).sum()) == found.numel() - inside.numel()


def test_letterbox_keeps_a_line_of_a_very_long_image():
    found = Resizing(24, "letterbox")(image((3, 1, 500)).clamp_min(1))
    assert (found != 0).any(0).any(1).sum() == 1


def test_every_way_agrees_for_a_square_that_fills_the_crop():
    x = image((3, 50, 50))
    ways = [Resizing(24, way, 1.0)(x) for way in ("crop", "squash", "letterbox")]
    assert torch.equal(ways[0], ways[1])
    assert torch.equal(ways[0], ways[2])


@pytest.mark.parametrize("way", ["crop", "squash", "letterbox"])
def test_a_batch_is_resized_as_its_images(way):
    x, resizing = image((4, 3, 30, 41)), Resizing(24, way)
    assert torch.equal(resizing(x), torch.stack([resizing(each) for each in x]))


def test_it_can_be_sent_to_a_worker():
    resizing = Resizing(24, "squash", 0.5, "bicubic")
    assert pickle.loads(pickle.dumps(resizing)) == resizing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0,), r"data\.image_size must be >= 1, got 0"),
        ((8, "crop", 0.0), r"data\.crop_fraction must be in \(0, 1\], got 0\.0"),
        ((8, "stretch"), r"unknown way to resize 'stretch': .*\(data\.resize=…\)"),
        ((8, "crop", 1.0, "lanczos"), r"unknown interpolation 'lanczos': .*data\.interpolation"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(values, message):
    with pytest.raises(UserError, match=message):
        Resizing(*values)
