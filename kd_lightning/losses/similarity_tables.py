"""Tables of similarities between samples, and the rows on which a teacher is worth imitating.

Self-supervised knowledge distillation (SSKD), Xu et al., arXiv 2006.07114. A row of scores has one
true column: the class of a sample, or the image that a transformed image was made from.

Dimensions: N rows, M columns, D features.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kd_lightning.losses.feature_loss import unit_features


def cosine_table(rows: Float[Tensor, "N D"], columns: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    """``cos(row i, column j)``, in [-1, 1] up to rounding.

    0, and without gradient, where a vector is zero: it has no angle. The gradient goes to both.
    Computed in float32, whatever the type of the input.
    """
    rows, columns = unit_features(rows), unit_features(columns)
    # with autocast the product would be in half precision
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ columns.T


def kept_rows(
    scores: Float[Tensor, "N M"], true_columns: Int[Tensor, "N"], ratio: float
) -> Bool[Tensor, "N"]:
    """The rows where the teacher is right, and this share of those where it is wrong.

    The error level of a row is the number of columns with a higher score than the true one; 0 is
    right. Of the wrong rows, the ``floor(ratio * number of wrong rows)`` with the lowest levels are
    kept: the "error-level ranking" of the paper. Among rows of one level, those are kept whose true
    score is closest to the highest. (The released code leaves their order to the sort.)

    No gradient, and no wait for the device: the result has N values, whatever is kept.

    Args:
        scores: of the teacher.
        ratio: in [0, 1]; 1 keeps all rows.
    """
    scores = scores.detach().float()
    true = scores.gather(1, true_columns.unsqueeze(1))
    levels = (scores > true).sum(dim=1)
    distance = scores.amax(dim=1) - true.squeeze(1)
    order = distance.argsort(stable=True)
    order = order[levels[order].argsort(stable=True)]
    places = torch.arange(len(order), device=order.device)
    places = torch.empty_like(order).scatter(0, order, places)
    num_right = (levels == 0).sum()
    return places < num_right + (ratio * (len(order) - num_right)).floor()


def mean_of_kept(values: Float[Tensor, "N"], kept: Bool[Tensor, "N"]) -> Float[Tensor, ""]:
    """The mean of the values of the kept rows; 0, with a graph, where none is kept."""
    return values.masked_fill(~kept, 0).sum() / kept.sum().clamp_min(1)
