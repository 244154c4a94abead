"""Logits (or other values) without their mean and scale."""

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1e-6  # relative to the values: a smaller spread is only float32 rounding


def standardize(values: Float[Tensor, "N M"], dim: int = 1) -> Float[Tensor, "N M"]:
    """``(v - mean(v)) / std(v)`` along ``dim``: mean 0, standard deviation 1, no unit.

    For the logits of each sample this is the standardization of Sun et al., arXiv 2403.01427: the
    student has to match the pattern of the teacher's logits, but not their range. Only the hard
    term then tells the student how confident to be, so look at its calibration. The standard
    deviation is that of the paper, which divides by the number of values. The released code divides
    by one less, which is the same as a temperature higher by 0.5 % for 100 classes.

    Constant values become 0 and get no gradient. Values that are constant up to rounding are
    treated the same way: their gradient would be about 1e6, in a random direction. The result does
    not change, up to rounding, when a constant is added to the values or when they are multiplied
    by a positive number. Computed in float32. The gradient goes to the values, also through their
    mean and standard deviation.
    """
    values = values.float()
    centred = values - values.mean(dim=dim, keepdim=True)
    variance = centred.square().mean(dim=dim, keepdim=True)
    least = (ROUNDING**2 * values.detach().square().mean(dim=dim, keepdim=True)).clamp_min(
        torch.finfo(torch.float32).tiny
    )
    is_constant = variance <= least
    return centred.masked_fill(is_constant, 0) / variance.masked_fill(is_constant, 1).sqrt()
