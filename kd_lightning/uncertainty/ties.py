"""Ties: samples with equal sort keys. Dimensions: B samples."""

import torch
from jaxtyping import Float
from torch import Tensor


def mean_over_ties(values: Float[Tensor, "B"], key: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Replaces each value by the mean over the samples with exactly the same ``key``, in float64.

    Cumulative sums along the sorted keys then do not depend on the order of the samples. They are
    the means over all orders of the tied samples. Without ties the values do not change.
    """
    _, group = key.unique(return_inverse=True)
    count = group.bincount()
    sums = torch.zeros(len(count), dtype=torch.float64, device=values.device)
    return (sums.index_add(0, group, values.double()) / count)[group]
