"""Training labels made few or wrong, to see what a method is worth where they are."""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from kd_lightning.base.streams import stream
from kd_lightning.data.loading.batches import Samples


def few_per_class(y: Int[Tensor, "N"], count: int, seed: int) -> Int[Tensor, "M"]:
    """Indices, sorted, of ``count`` random samples of each class; all of a class that has fewer.

    The samples of a smaller count are among those of a larger one.
    """
    generator = stream(seed, "samples per class")
    kept = []
    for label in y.unique().tolist():
        members = (y == label).nonzero().flatten()
        kept.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(kept).sort().values


def with_noise(y: Int[Tensor, "N"], num_classes: int, share: float, seed: int) -> Int[Tensor, "N"]:
    """``y`` with a share of its labels, to rounding, replaced by another class drawn uniformly.

    Symmetric noise. The labels that a smaller share makes wrong are among those of a larger one.
    """
    generator = stream(seed, "label noise")
    order = torch.randperm(len(y), generator=generator)
    shift = torch.randint(1, num_classes, (len(y),), generator=generator)
    wrong = order[: round(share * len(y))]
    noisy = y.clone()
    noisy[wrong] = (y[wrong] + shift[wrong]) % num_classes
    return noisy


def made_scarce(
    train: Samples, num_classes: int, per_class: int | None, noise: float, seed: int
) -> tuple[Samples, str]:
    """``train`` with so few labels, None: all, and so wrong ones; and what was done, in words."""
    done = ""
    if per_class is not None:
        train = train.subset(few_per_class(train.y, per_class, seed))
        at_most = "" if len(train) == per_class * num_classes else "at most "
        done += f"train: {at_most}{per_class} samples of each class; "
    if noise:
        y = with_noise(train.y, num_classes, noise, seed)
        wrong = int((y != train.y).sum())
        train = replace(train, y=y)
        done += f"{wrong} of train's {len(y)} labels made wrong (split_seed {seed}), "
        done += "before val is cut from it; "
    return train, done
