"""Cutting a part from another: seeded, stratified by class, or by subject if there are."""

import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.streams import stream


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
