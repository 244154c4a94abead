"""Samples that cannot be told apart by what they are sorted by. Dimensions: B samples."""

import torch
from jaxtyping import Float
from torch import Tensor


def mean_over_ties(values: Float[Tensor, "B"], key: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Each value replaced by the mean over the samples with exactly its ``key``, in float64.

    What is then added up along the sorted keys does not depend on the order that the samples came
    in, and is what it would be on average over all orders of the tied. Without ties the values are
    what they were.
    """
    _, group = key.unique(return_inverse=True)
    count = group.bincount()
    sums = torch.zeros(len(count), dtype=torch.float64, device=values.device)
    return (sums.index_add(0, group, values.double()) / count)[group]
