"""Resized rectangles of a batch have the bytes that torchvision gives for single images."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from kd_lightning.data.resampling import Rectangles, resize_whole_batch, resized_crops

SHAPES = [(256, 256, 224), (64, 50, 32), (300, 200, 16), (40, 40, 96), (1, 1, 5), (31, 64, 2)]


def batch(height: int, width: int, size: int, count: int = 12) -> tuple[Tensor, Rectangles]:
    """Noisy and smooth images, and rectangles: the whole image, one pixel, the new size, others."""
    generator = torch.Generator().manual_seed(0)

    def random_below(high: Tensor) -> Tensor:
        return (torch.rand(count, generator=generator) * high).long()

    x = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
    x[::2] = tv.resize(x[::2, :, :3, :3], [height, width])
    tall, wide = (1 + random_below(torch.full((count,), side)) for side in (height, width))
    tall[:3] = torch.tensor([height, 1, min(size, height)])
    wide[:3] = torch.tensor([width, 1, min(size, width)])
    return x, Rectangles(
        random_below(height - tall + 1), random_below(width - wide + 1), tall, wide
    )


def one_by_one(x: Tensor, crops: Rectangles, size: int) -> Tensor:
    places = zip(crops.top, crops.left, crops.height, crops.width, strict=True)
    return torch.stack(
        [
            tv.resized_crop(one, *(int(value) for value in place), [size, size], antialias=True)
            for one, place in zip(x, places, strict=True)
        ]
    )


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
@pytest.mark.parametrize("function", [resized_crops, resize_whole_batch])
def test_bytes_equal_torchvisions(function, height: int, width: int, size: int) -> None:
    x, crops = batch(height, width, size)
    found, expected = function(x, crops, size), one_by_one(x, crops, size)
    assert found.dtype == torch.uint8
    # torchvision resizes bytes with integers only if the processor has AVX2
    tolerance = 0 if "AVX" in torch.backends.cpu.get_cpu_capability() else 1
    assert (found.int() - expected.int()).abs().max() <= tolerance


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_single_images_and_whole_batches_give_the_same_bytes_on_any_cpu(
    height, width, size
) -> None:
    x, crops = batch(height, width, size)
    assert torch.equal(resized_crops(x, crops, size), resize_whole_batch(x, crops, size))


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_floats_equal_torchvisions_up_to_rounding(height: int, width: int, size: int) -> None:
    x, crops = batch(height, width, size)
    found = resize_whole_batch(x.float() / 255, crops, size)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, one_by_one(x.float() / 255, crops, size), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_the_memory_layout_is_kept_and_does_not_change_the_result(
    height: int, width: int, size: int
) -> None:
    x, crops = batch(height, width, size)
    expected, last = resized_crops(x, crops, size), x.to(memory_format=torch.channels_last)
    of_many = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in x]
    for other in (last, of_many):
        found = resized_crops(other, crops, size)
        assert torch.equal(found, expected)
        if height > 1:  # a single pixel has every layout
            assert found.is_contiguous(memory_format=torch.channels_last)


def test_images_of_different_sizes_are_resized_as_single_images_are() -> None:
    alone = [batch(height, width, 20, count=4) for height, width, _ in SHAPES]
    images = [x[3] for x, _ in alone]
    places = [[value[3:] for value in vars(crops).values()] for _, crops in alone]
    found = resized_crops(images, Rectangles(*map(torch.cat, zip(*places, strict=True))), 20)
    for one, (x, _), place in zip(found, alone, places, strict=True):
        assert torch.equal(one.unsqueeze(0), resized_crops(x[3:], Rectangles(*place), 20))


def test_pixels_outside_the_rectangle_do_not_matter() -> None:
    x, crops = batch(40, 40, 16)
    other = x.clone()
    for i, image in enumerate(other):
        kept = image[
            :,
            crops.top[i] : crops.top[i] + crops.height[i],
            crops.left[i] : crops.left[i] + crops.width[i],
        ].clone()
        image.fill_(255)
        tall, wide = kept.shape[1:]
        image[:, crops.top[i] : crops.top[i] + tall, crops.left[i] : crops.left[i] + wide] = kept
    assert torch.equal(resize_whole_batch(x, crops, 16), resize_whole_batch(other, crops, 16))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_bytes_as_a_cpu() -> None:
    for height, width, size in SHAPES:
        x, crops = batch(height, width, size)
        gpu_crops = Rectangles(*(value.cuda() for value in vars(crops).values()))
        assert torch.equal(
            resized_crops(x.cuda(), gpu_crops, size).cpu(), resized_crops(x, crops, size)
        )
