"""Seeded splits: a part in two, by class or by subject; train and test of an archive drawn anew."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import stream


def split(
    y: Tensor,
    groups: Tensor | None,
    fraction: float,
    seed: int,
    *,
    key: str = "data.val_fraction=0",
) -> tuple[Tensor, Tensor]:
    """Sorted indices (kept, held out) of a split: stratified by class, or by group.

    By class: of every class with at least two samples, at least one is held out and one is kept. By
    group: whole groups are held out, in a seeded order, until ``fraction`` of the samples is
    reached.

    Args:
        groups: group (subject) of each sample; None: split by class.
        fraction: share of the samples that is held out.
        key: the setting that avoids this split, for error messages.

    Raises:
        UserError: there are fewer than two groups, or no class has two samples.
    """
    generator = stream(seed, "split")
    is_held_out = torch.zeros(len(y), dtype=torch.bool)
    if groups is None:
        for label in y.unique().tolist():
            members = (y == label).nonzero().flatten()
            count = min(max(1, round(fraction * len(members))), len(members) - 1)
            is_held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    else:
        names = groups.unique()
        if len(names) < 2:
            raise UserError(f"a split by subject needs two subjects or more ({key})")
        for name in names[torch.randperm(len(names), generator=generator)][:-1].tolist():
            is_held_out |= groups == name
            if is_held_out.sum() >= fraction * len(y):
                break
        assert not set(groups[is_held_out].tolist()) & set(groups[~is_held_out].tolist())
    if not is_held_out.any():
        raise UserError(f"no class has two samples: none can be held out ({key})")
    return (~is_held_out).nonzero().flatten(), is_held_out.nonzero().flatten()


def stratified_resample(
    train: Sequence[str], test: Sequence[str], seed: int
) -> tuple[Tensor, Tensor]:
    """Draws train and test anew from both together, as many of each class as before. These are the
    samples that aeon and the published results on resamples of UCR problems draw with this seed.

    Args:
        train: the class names of train's samples; all classes of test are among them.
        test: those of test's samples.

    Returns:
        The indices of the new train and test, in train followed by test.
    """
    labels, random = np.array([*train, *test]), np.random.RandomState(seed)
    parts: tuple[list[int], list[int]] = ([], [])
    for label, count in zip(*np.unique(np.array(train), return_counts=True), strict=True):
        members = np.flatnonzero(labels == label)
        random.shuffle(members)
        parts[0].extend(members[:count])
        parts[1].extend(members[count:])
    return torch.tensor(parts[0]), torch.tensor(parts[1])


def resolve_split_seed(facts: Mapping[str, Any], requested: int | None) -> int:
    """The ``split_seed`` of prepared or packed images: the requested one, or that of preparation.

    Args:
        facts: the metadata that preparation wrote.
        requested: ``data.split_seed``; None: use that of preparation.

    Raises:
        UserError: another seed is requested, but the test part was split off from train with the
            seed of preparation. Two runs with the same ``split_seed`` would otherwise be tested on
            different parts.
    """
    if requested in (None, facts["split_seed"]):
        return facts["split_seed"]
    if facts["test_is_cut"]:
        raise UserError(
            f"the test part was split off from train with split_seed={facts['split_seed']} when "
            f"the images were prepared, got data.split_seed={requested}: remove it, or prepare "
            "the images again with it"
        )
    return requested
