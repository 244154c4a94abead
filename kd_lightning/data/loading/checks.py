"""Checks of samples, augmentation and mixing before training, and the fingerprint of the data."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from kd_lightning.base.errors import UserError
from kd_lightning.data.augmentation import BatchTransform
from kd_lightning.data.loading.batches import Samples, Transform
from kd_lightning.data.loading.channel_statistics import (
    channel_statistics,
    channels_in_other_units,
)
from kd_lightning.data.loading.disk_array import DiskArray
from kd_lightning.data.loading.packed_files import file_id
from kd_lightning.data.loading.sample_random import PerSampleRandom


def lacking_classes(samples: Samples, class_names: Sequence[str]) -> list[str]:
    counts = torch.bincount(samples.y, minlength=len(class_names))
    return [class_names[i] for i in (counts == 0).nonzero().flatten().tolist()]


def check_classes_after_split(train: Samples, class_names: Sequence[str]) -> None:
    """Raises ``UserError`` if a split by subject has left a class without a training sample."""
    lacking = lacking_classes(train, class_names)
    if lacking:
        raise UserError(
            f"the split by subject leaves no training sample of {', '.join(lacking[:5])}: choose "
            "another one (data.split_seed=…), or give a val part"
        )


def notes_on_lacking_classes(
    parts: Mapping[str, Samples | None], class_names: Sequence[str]
) -> list[str]:
    """A sentence for each of these parts that has no sample of some classes."""
    notes = []
    for name, samples in parts.items():
        lacking = [] if samples is None else lacking_classes(samples, class_names)
        if lacking:
            shown = f"{', '.join(lacking[:5])}{', …' if len(lacking) > 5 else ''}"
            notes.append(
                f"{name} has no sample of {len(lacking)} of {len(class_names)} classes ({shown}), "
                "so it says nothing about them."
            )
    return notes


def notes_on_units(
    train: Samples,
    parts: Mapping[str, Samples | None],
    mean: Sequence[float],
    std: Sequence[float],
) -> list[str]:
    """A sentence for each of these parts whose values are of another size than those of train.

    Args:
        mean, std: of the channels of train.
    """
    if not isinstance(train.x, Tensor) or not train.x.is_floating_point():
        return []
    notes = []
    for name, samples in parts.items():
        found = [] if samples is None else channels_in_other_units(samples.x, mean, std)
        if found:
            own_mean, own_std = channel_statistics(samples.x[:, found[:1]])
            notes.append(
                f"{len(found)} of {len(mean)} channels of {name} are of another size than in train "
                f"(channel {found[0]}: mean {own_mean[0]:.3g} and std {own_std[0]:.3g}, in train "
                f"{mean[found[0]]:.3g} and {std[found[0]]:.3g}): are they in the same unit?"
            )
    return notes


def check_samples(samples: Samples, class_names: list[str], part: str) -> None:
    """Raises ``UserError`` for an empty part or class, a label out of range, or a non-finite x."""
    num_classes = len(class_names)
    if len(samples) == 0:
        raise UserError(f"the {part} part is empty (data.root=…)")
    if num_classes < 2:
        raise UserError(
            f"a classifier needs two classes or more, the data have {num_classes}: "
            f"{', '.join(class_names) or 'none'} (data.root=…)"
        )
    low, high = int(samples.y.min()), int(samples.y.max())
    if low < 0 or high >= num_classes:
        raise UserError(
            f"labels must be 0..{num_classes - 1}, the {part} part has {low}..{high} (data.root=…)"
        )
    empty = lacking_classes(samples, class_names)
    if part == "train" and empty:
        raise UserError(
            f"every class needs a training sample, {len(empty)} of {num_classes} have none: "
            f"{', '.join(empty[:5])}{', …' if len(empty) > 5 else ''} (data.root=…)"
        )
    if isinstance(samples.x, Tensor) and samples.x.is_floating_point():
        bad = (~samples.x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        if bad:
            raise UserError(
                f"the {part} part has NaN or infinite values, in {len(bad)} samples, "
                f"the first is number {bad[0]} (data.root=…)"
            )


def fingerprint(*parts: Samples | None) -> str:
    """A hash of the content as 16 hex digits.

    It covers values and labels. For files, and for a disk array made of files, it covers the names,
    sizes and labels of the files instead of their content.
    """
    digest = hashlib.sha256()
    for part in parts:
        if part is None:
            digest.update(b"none")
            continue
        digest.update(part.y.numpy().tobytes())
        if isinstance(part.x, Tensor):
            digest.update(repr((tuple(part.x.shape), part.x.dtype)).encode())
            digest.update(part.x.contiguous().numpy().data)
        elif isinstance(part.x, DiskArray):
            digest.update(repr((tuple(part.x.shape), part.x.content_id)).encode())
            digest.update(part.x.rows.numpy().tobytes())
        else:
            for path in part.x:
                digest.update(f"{file_id(path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def check_augmentation(augmentation: Transform, example: Tensor, channels: int, size: int) -> None:
    """Raises ``UserError`` if the augmentation does not return samples of the expected shape.

    Args:
        example: a sample, (C, *size) or larger.
        channels: number of channels that the networks expect.
        size: side of an image, or length of a series, that the networks expect.
    """
    try:
        if isinstance(augmentation, BatchTransform):
            rng = PerSampleRandom(0, torch.zeros(1, dtype=torch.long))
            result = augmentation(example.unsqueeze(0), rng).squeeze(0)
        else:
            with torch.random.fork_rng(devices=[]):
                result = augmentation(example)
        result_channels, *sides = result.shape
    except (ValueError, RuntimeError) as error:
        kind, hint = "samples", ""
        if example.ndim == 2:
            kind, hint = "series", ", as those of this package are for images"
        raise UserError(
            f"the augmentation does not suit {kind} of shape {tuple(example.shape)}{hint}: "
            f"{' '.join(str(error).split())} (data.augmentation=…)"
        ) from error
    if result_channels != channels or set(sides) != {size}:
        raise UserError(
            f"the augmentation must return {channels} channels of size {size}, it returns "
            f"{result_channels} of {' x '.join(map(str, sides))} (data.augmentation=…)"
        )


def check_mixing(mixing: Callable[..., Callable], num_classes: int) -> None:
    """Raises ``UserError`` if torchvision refuses the arguments of the mixing."""
    was_on = Distribution._validate_args  # torch.compile turns it off for the whole process
    try:
        Distribution.set_default_validate_args(True)
        mixing(num_classes=num_classes)
    except ValueError as error:
        raise UserError(
            f"the mixing refuses its settings: {' '.join(str(error).split())} (data.mixing.alpha=…)"
        ) from error
    finally:
        Distribution.set_default_validate_args(was_on)
