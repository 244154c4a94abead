"""Fewer or noisy training labels: ``data.train_per_class`` and ``data.label_noise``."""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from kd_lightning.base.streams import stream
from kd_lightning.data.loading.batches import Samples


def subsample_per_class(y: Int[Tensor, "N"], count: int, seed: int) -> Int[Tensor, "M"]:
    """Sorted indices of ``count`` random samples of each class, or all if a class has fewer.

    With the same seed, the samples for a smaller count are a subset of those for a larger count.
    """
    generator = stream(seed, "samples per class")
    indices = []
    for label in y.unique().tolist():
        members = (y == label).nonzero().flatten()
        indices.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(indices).sort().values


def add_label_noise(
    y: Int[Tensor, "N"], num_classes: int, share: float, seed: int
) -> Int[Tensor, "N"]:
    """Symmetric label noise: replaces a share of the labels by another class, drawn uniformly.

    The number of replaced labels is rounded. With the same seed, the labels replaced for a smaller
    share are a subset of those for a larger share.
    """
    generator = stream(seed, "label noise")
    order = torch.randperm(len(y), generator=generator)
    shift = torch.randint(1, num_classes, (len(y),), generator=generator)
    wrong = order[: round(share * len(y))]
    noisy = y.clone()
    noisy[wrong] = (y[wrong] + shift[wrong]) % num_classes
    return noisy


def limit_labels(
    train: Samples,
    num_classes: int,
    per_class: int | None,
    noise: float,
    noisy_val: bool,
    seed: int,
) -> tuple[Samples, Int[Tensor, "N"], str]:
    """Applies both limits to ``train``.

    Args:
        per_class: number of samples of each class; None: all.
        noise: share of wrong labels.
        noisy_val: whether a val that is cut from ``train`` keeps its wrong labels; for the note.

    Returns:
        The samples, their right labels, and a description of the limits for the protocol.
    """
    note = ""
    if per_class is not None:
        train = train.subset(subsample_per_class(train.y, per_class, seed))
        at_most = "" if len(train) == per_class * num_classes else "at most "
        note += f"train: {at_most}{per_class} samples of each class; "
    right = train.y
    if noise:
        y = add_label_noise(train.y, num_classes, noise, seed)
        wrong = int((y != train.y).sum())
        train = replace(train, y=y)
        note += f"{wrong} of train's {len(y)} labels made wrong (split_seed {seed}), "
        note += "before val is cut from it"
        note += "; " if noisy_val else ", whose labels are right; "
    return train, right, note
