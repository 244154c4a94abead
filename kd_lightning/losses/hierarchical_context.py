"""Hierarchical context loss (HCL) of knowledge review, Chen et al., arXiv 2104.09044.

Two feature maps are compared position by position, and again after pooling to smaller grids, so
that details and the larger context both count. The grids and their weights are as released.

Dimensions: B batch, D channels, then the positions: (H, W) of images or (L) of series.
"""

from torch import Tensor

from kd_lightning.losses.feature_distance import feature_mse
from kd_lightning.losses.feature_loss import Maps, average_pool

GRIDS = (4, 2, 1)


def hierarchical_context_loss(student: Maps, teacher: Maps) -> Tensor:
    """``sum_l w_l mse(pool_l(F), pool_l(F_t)) / sum_l w_l``, (B,): the maps of one size themselves
    with weight 1, then averages over grids of 4, 2 and 1 a side with 1/2, 1/4 and 1/8. A grid that
    is not smaller than the map is left out, and the next one has its weight.

    Zero when the maps are equal. The unit is that of the features, squared. The gradient goes to
    the student alone. Computed in float32.
    """
    student, teacher = student.float(), teacher.detach().float()
    dims = student.ndim - 2
    grids = [[n] * dims for n in GRIDS if n < min(student.shape[2:])]
    smaller = [(average_pool(student, grid), average_pool(teacher, grid)) for grid in grids]
    pairs = [(student, teacher), *smaller]
    weights = [0.5**level for level in range(len(pairs))]
    distances = [feature_mse(a.flatten(1), b.flatten(1)) for a, b in pairs]
    return sum([w * d for w, d in zip(weights, distances, strict=True)]) / sum(weights)
