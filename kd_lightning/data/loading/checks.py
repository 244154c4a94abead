"""What samples must be before anything is trained on them, and what they are known by."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from kd_lightning.base.errors import UserError
from kd_lightning.data.augmentation import BatchTransform, Draws
from kd_lightning.data.loading.batches import Samples, Transform
from kd_lightning.data.loading.disk_array import OnDisk
from kd_lightning.data.loading.packed_files import known_by


def check_samples(samples: Samples, class_names: list[str], part: str) -> None:
    """Raises ``UserError`` for empty parts, labels out of range, empty classes, non-finite x."""
    num_classes = len(class_names)
    if len(samples) == 0:
        raise UserError(f"the {part} part is empty (data.root=…)")
    if num_classes < 2:
        raise UserError(f"a classifier needs two classes or more, the data have {num_classes}")
    low, high = int(samples.y.min()), int(samples.y.max())
    if low < 0 or high >= num_classes:
        raise UserError(
            f"labels must be 0..{num_classes - 1}, the {part} part has {low}..{high} (data.root=…)"
        )
    counts = torch.bincount(samples.y, minlength=num_classes)
    if part == "train" and not bool(counts.all()):
        empty = [class_names[i] for i in (counts == 0).nonzero().flatten().tolist()]
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
    """16 hex digits of the content: values and labels; for files their paths, sizes and labels,
    and likewise for an array on a disk, of the files that it was made of.
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
        elif isinstance(part.x, OnDisk):
            digest.update(repr((tuple(part.x.shape), part.x.known_by)).encode())
            digest.update(part.x.rows.numpy().tobytes())
        else:
            for path in part.x:
                digest.update(f"{known_by(path)}\n".encode())
    return digest.hexdigest()[:16]


def check_augmentation(augmentation: Transform, example: Tensor, channels: int, size: int) -> None:
    """Raises ``UserError`` if it does not make of a sample what the nets get.

    Args:
        example: a sample, (C, *size) or larger.
        channels: that the nets get.
        size: of each side that the nets get.
    """
    try:
        if isinstance(augmentation, BatchTransform):
            draws = Draws(0, torch.zeros(1, dtype=torch.long))
            shown = augmentation(example.unsqueeze(0), draws).squeeze(0)
        else:
            with torch.random.fork_rng(devices=[]):
                shown = augmentation(example)
        given, *sides = shown.shape
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the augmentation does not suit samples of shape {tuple(example.shape)}: "
            f"{' '.join(str(error).split())} (data.augmentation=…)"
        ) from error
    if given != channels or set(sides) != {size}:
        raise UserError(
            f"the augmentation must give what the nets get, {channels} channels of size "
            f"{size}, it gives {given} of {' x '.join(map(str, sides))} "
            "(data.augmentation=…)"
        )


def check_mixing(mixing: Callable[..., Callable], num_classes: int) -> None:
    """Raises ``UserError`` for a mixing that refuses its settings."""
    checks = Distribution._validate_args  # torch.compile turns it off, in the whole process
    try:
        Distribution.set_default_validate_args(True)
        mixing(num_classes=num_classes)
    except ValueError as error:
        raise UserError(
            f"the mixing refuses its settings: {' '.join(str(error).split())} (data.mixing.alpha=…)"
        ) from error
    finally:
        Distribution.set_default_validate_args(checks)
