"""Samples of another data set take the size, the channels and the type of the task's."""

import pytest
import torch
from torchvision.transforms import v2

from kd_lightning.base.errors import UserError
from kd_lightning.data.augmentation import RandomHorizontalFlip, RandomResizedCrop
from kd_lightning.data.loading.sample_random import PerSampleRandom
from kd_lightning.data.loading.task_form import FormedBatch, TaskForm, with_augmentation

GREY, COLOUR = TaskForm((1, 8, 8), torch.uint8), TaskForm((3, 8, 8), torch.float32)


def images(*shape: int) -> torch.Tensor:
    return (torch.arange(torch.Size(shape).numel()) % 256).to(torch.uint8).view(shape)


def rng(count: int) -> PerSampleRandom:
    return PerSampleRandom(0, torch.arange(count))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 12), (3, 5, 4), (2, 3, 9, 9)])
def test_images_get_the_size_the_channels_and_the_type(shape: tuple[int, ...]) -> None:
    for form in (GREY, COLOUR):
        x = form(images(*shape))
        assert x.shape == (*shape[:-3], *form.shape)
        assert x.dtype == form.dtype
    assert COLOUR(images(*shape)).max() <= 1


def test_samples_that_have_the_form_stay_as_they_are() -> None:
    x = images(4, 1, 8, 8)
    assert torch.equal(GREY(x), x)
    series = torch.randn(3, 2, 9)
    assert torch.equal(TaskForm((2, 9), torch.float32)(series), series)


def test_the_centre_is_kept_and_grey_becomes_three_equal_channels() -> None:
    x = torch.zeros(1, 8, 16, dtype=torch.uint8)
    x[..., 4:12] = 255
    formed = COLOUR(x)
    assert formed.eq(1).all()
    assert torch.equal(formed[0], formed[2])


def test_numbers_in_0_1_become_bytes() -> None:
    assert GREY(torch.ones(1, 8, 8)).eq(255).all()


@pytest.mark.parametrize(
    ("form", "shape", "sentence"),
    [
        (GREY, (1, 30), r"must be images of shape \(1, 8, 8\) .*, other has series of \(1, 30\)"),
        (TaskForm((1, 30), torch.float32), (1, 8, 8), r"must be series .* has images"),
        (TaskForm((1, 30), torch.float32), (1, 31), r"series of shape \(1, 30\).*of \(1, 31\)"),
        (GREY, (4, 8, 8), r"must have 1 channels as the labeled ones, other has 4"),
    ],
)
def test_what_cannot_be_mended_is_one_sentence(form: TaskForm, shape, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        form.check(torch.zeros(shape), "other")


@pytest.mark.parametrize("shape", [(3, 9, 9), (1, 8, 8), (1, 4, 7)])
def test_images_that_can_be_mended_are_accepted(shape: tuple[int, ...]) -> None:
    GREY.check(torch.zeros(shape), "other")
    COLOUR.check(torch.zeros(shape), "other")


def test_whole_batches_are_augmented_after_they_have_the_form() -> None:
    transform = with_augmentation(GREY, RandomHorizontalFlip(p=1.0))
    assert isinstance(transform, FormedBatch)
    x = images(5, 3, 16, 16)
    assert torch.equal(transform(x, rng(5)), GREY(x).flip(-1))
    different = [images(3, 16, 16), images(1, 9, 8)]
    assert torch.equal(transform(different, rng(2))[1], GREY(different[1]).flip(-1))
    assert torch.equal(with_augmentation(GREY, None)(x, rng(5)), GREY(x))


def test_random_crops_are_taken_from_the_whole_image() -> None:
    crop = RandomResizedCrop(8, scale=(0.1, 0.2))
    x = images(3, 1, 64, 64)
    transform = with_augmentation(GREY, crop)
    assert torch.equal(transform(x, rng(3)), crop(x, rng(3)))
    assert transform([x[0], images(3, 20, 30)], rng(2)).shape == (2, 1, 8, 8)


def test_torchvisions_transforms_get_single_samples() -> None:
    transform = with_augmentation(COLOUR, v2.RandomHorizontalFlip(p=1.0))
    x = images(1, 12, 8)
    assert torch.equal(transform(x), COLOUR(x).flip(-1))
