"""Mean and std of each channel, by which networks normalise their input."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CONSTANT = 1e-6  # of the largest value: below it float32 tells no std from rounding
OTHER_UNIT = 10  # times as large as another part: more than parts of one data set differ


def channel_statistics(x: Tensor) -> tuple[list[float], list[float]]:
    """Mean and std of each channel of x (N, C, *), bytes as values in [0, 1].

    A channel without variation has std 1, so that normalisation does not blow up what rounding, or
    a sample of another part, adds to it. Values may be as small as their unit makes them: an EEG
    in volts has a std of 1e-5.
    """
    x = x.float() / (255 if x.dtype == torch.uint8 else 1)
    dims = [d for d in range(x.ndim) if d != 1]
    mean, std = x.mean(dims), x.std(dims)
    largest = torch.maximum(x.amax(dims), -x.amin(dims))
    std = torch.where(std > CONSTANT * largest, std, 1.0)
    return mean.tolist(), std.tolist()


def rounded_statistics(mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
    """Both with 6 decimals, or as many more as give a small std five digits.

    Machines differ in the last digits of such sums, and their runs have to agree.
    """
    decimals = [max(6, 4 - math.floor(math.log10(value))) for value in std]
    return tuple(
        [round(value, places) for value, places in zip(values, decimals, strict=True)]
        for values in (mean, std)
    )


def channels_in_other_units(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> list[int]:
    """The channels of x (N, C, *) that vary ten times more or less than those of another part, or
    whose mean is ten of its standard deviations away. Channels that do not vary are left out.

    Args:
        mean, std: of that part, from ``channel_statistics``.
    """
    own_mean, own_std = channel_statistics(x)
    found = []
    for channel, (m, s, other_m, other_s) in enumerate(
        zip(own_mean, own_std, mean, std, strict=True)
    ):
        varies = s != 1.0 and other_s != 1.0  # 1: without variation
        other_scale = not 1 / OTHER_UNIT < s / other_s < OTHER_UNIT
        if varies and (other_scale or abs(m - other_m) > OTHER_UNIT * other_s):
            found.append(channel)
    return found
