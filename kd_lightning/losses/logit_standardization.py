"""Values without their place and scale: what is left is their pattern."""

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1e-6  # of the values' size: a spread below it is made of float32's rounding


def standardize(values: Float[Tensor, "N M"], dim: int = 1) -> Float[Tensor, "N M"]:
    """``(v - mean(v)) / std(v)`` along ``dim``: mean 0, standard deviation 1, no unit.

    Of each sample's logits it is the standardization of Sun et al., arXiv 2403.01427: a student
    is then asked for the teacher's pattern of logits, not for their range. What makes it as sure
    as it should be is the hard term alone, so look at its calibration. The standard deviation is
    the paper's, which divides by the number of values; the released code divides by one less,
    which is a temperature higher by 0.5 % for 100 classes.

    A constant has no pattern: it becomes 0, and gets no gradient. So does one to rounding, whose
    gradient would otherwise be 1e6 and point anywhere. Unchanged, to rounding, when a constant is
    added to the values or they are multiplied by a positive number. Computed in float32; the
    gradient goes to the values, through mean and standard deviation too.
    """
    values = values.float()
    centred = values - values.mean(dim=dim, keepdim=True)
    variance = centred.square().mean(dim=dim, keepdim=True)
    least = (ROUNDING**2 * values.detach().square().mean(dim=dim, keepdim=True)).clamp_min(
        torch.finfo(torch.float32).tiny
    )
    is_constant = variance <= least
    return centred.masked_fill(is_constant, 0) / variance.masked_fill(is_constant, 1).sqrt()
