"""Cutting a part from another: seeded, stratified by class, or by subject if there are."""

from collections.abc import Mapping
from typing import Any

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
    """Indices (kept, held out), sorted: stratified by class, or whole groups where there are any.

    Every class with at least two samples gives at least one and keeps at least one. Groups are
    held out whole, in a seeded order, until ``fraction`` of the samples is reached.

    Raises:
        UserError: fewer than two groups, or no class has two samples.
    """
    generator = stream(seed, "split")
    held = torch.zeros(len(y), dtype=torch.bool)
    if groups is None:
        for label in y.unique().tolist():
            members = (y == label).nonzero().flatten()
            count = min(max(1, round(fraction * len(members))), len(members) - 1)
            held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    else:
        names = groups.unique()
        if len(names) < 2:
            raise UserError(f"a split by subject needs two subjects or more ({key})")
        for name in names[torch.randperm(len(names), generator=generator)][:-1].tolist():
            held |= groups == name
            if held.sum() >= fraction * len(y):
                break
        assert not set(groups[held].tolist()) & set(groups[~held].tolist())
    if not held.any():
        raise UserError(f"no class has two samples: none can be held out ({key})")
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def split_seed_of(facts: Mapping[str, Any], asked: int | None) -> int:
    """The ``split_seed`` of a data set that was made of a tree: the tree's, or the one asked for.

    Raises:
        UserError: another, where the tree's test part was cut from train by its own: two nets of
            the same ``split_seed`` would have been tested on different parts.
    """
    if asked in (None, facts["split_seed"]):
        return facts["split_seed"]
    if facts["test_is_cut"]:
        raise UserError(
            f"the test part was cut from train by split_seed={facts['split_seed']} when the images "
            f"were prepared, got data.split_seed={asked}: leave it out, or prepare the tree with it"
        )
    return asked
