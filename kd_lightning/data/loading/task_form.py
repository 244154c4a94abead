"""Brings samples of another data set to the form of the labeled ones: size, channels, type."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Num
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from kd_lightning.base.errors import UserError
from kd_lightning.data.augmentation import BatchTransform
from kd_lightning.data.loading.batches import Transform
from kd_lightning.data.loading.resizing import Resizing
from kd_lightning.data.loading.sample_random import PerSampleRandom


class TaskForm:
    """Samples of another data set -> samples with the shape and the type of the task's.

    The short side of an image is resized and its centre is cropped; colours become grey, and grey
    becomes three equal channels. Series must have the right shape already.

    Args:
        shape: of a sample of the task: (C, S, S) or (C, L).
        dtype: of its samples: uint8 or float32; images are then in [0, 255] or [0, 1].
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype

    def check(self, example: Num[Tensor, "C *size"], name: str) -> None:
        """Raises ``UserError`` for samples that cannot be brought to this form.

        Args:
            name: of their data set, for the message.
        """
        shape = tuple(example.shape)
        are_images = len(shape) == len(self.shape) == 3
        channels = (shape[0], self.shape[0])
        fits = channels[0] == channels[1] or set(channels) == {1, 3}
        if are_images and not fits:
            raise UserError(
                f"the unlabeled samples must have {channels[1]} channels as the labeled ones, "
                f"{name} has {channels[0]}: choose others (data.unlabeled=…)"
            )
        if not are_images and shape != self.shape:
            kinds = {2: "series", 3: "images"}
            raise UserError(
                f"the unlabeled samples must be {kinds[len(self.shape)]} of shape {self.shape} as "
                f"the labeled ones, {name} has {kinds[len(shape)]} of {shape}: choose others "
                "(data.unlabeled=…)"
            )

    def __call__(self, x: Num[Tensor, "..."]) -> Num[Tensor, "..."]:
        """One sample (C, *size), or a batch of samples of one size."""
        x = self.values(x)
        if len(self.shape) == 3 and x.shape[-2:] != self.shape[1:]:
            x = Resizing(self.shape[-1], "crop", 1.0)(x)
        return x

    def values(self, x: Num[Tensor, "..."]) -> Num[Tensor, "..."]:
        """A sample or a batch in the task's type and channels, with its own size."""
        if len(self.shape) == 2:
            return x.to(self.dtype)
        if x.shape[-3] != self.shape[0]:
            grey = self.shape[0] == 1
            x = tv.rgb_to_grayscale(x) if grey else x.expand(*x.shape[:-3], 3, *x.shape[-2:])
        if x.dtype != self.dtype:
            x = tv.to_dtype(x, self.dtype, scale=True)
        return x


def with_augmentation(form: TaskForm, augmentation: Transform | None) -> Transform:
    """The transform that brings samples to a form and then augments them."""
    if augmentation is None or isinstance(augmentation, BatchTransform):
        return FormedBatch(form, augmentation)
    return FormedSample(form, augmentation)


class FormedBatch(BatchTransform):
    """A form, and then an augmentation of whole batches, which crops from images of any size where
    it can.
    """

    takes_any_size = True

    def __init__(self, form: TaskForm, augmentation: BatchTransform | None) -> None:
        self.augmentation = augmentation
        crops = augmentation is not None and augmentation.takes_any_size
        self.form = form.values if crops else form
        self.crops = crops

    def __call__(self, x: Tensor | Sequence[Tensor], rng: PerSampleRandom) -> Tensor:
        if isinstance(x, Tensor):
            formed: Tensor | list[Tensor] = self.form(x)
        else:
            formed = [self.form(image) for image in x]
            formed = formed if self.crops else torch.stack(formed)
        return formed if self.augmentation is None else self.augmentation(formed, rng)


class FormedSample:
    """A form, and then an augmentation of one sample."""

    def __init__(self, form: TaskForm, augmentation: Callable[[Tensor], Tensor]) -> None:
        self.form = form
        self.augmentation = augmentation

    def __call__(self, x: Tensor) -> Tensor:
        return self.augmentation(self.form(x))
