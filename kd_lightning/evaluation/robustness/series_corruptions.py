"""Corruptions of time series in five severities.

There is no benchmark whose levels the field shares, so the levels are this package's own. The two
warps are those of Um et al. 2017, arXiv 1706.00527. Lengths are shares of the series, heights are
in standard deviations of each channel over the train part of the data.

Dimensions: C channels, L values of each. Series are float arrays (C, L).
"""

from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline

Series = np.ndarray
Random = np.random.Generator
KNOTS = 4  # of a random smooth curve, beside its two ends
SLOWEST = 0.1  # least speed of a warped time; 0 would stop it


def gaussian_noise(x: Series, mean: Series, std: Series, level: float, rng: Random) -> Series:
    return x + level * std * rng.normal(size=x.shape)


def dropout(x: Series, mean: Series, std: Series, level: float, rng: Random) -> Series:
    """One segment with this share of the length is replaced by the mean of each channel."""
    length = x.shape[1]
    count = min(length, max(1, round(level * length)))
    start = rng.integers(0, length - count + 1)
    dropped = x.copy()
    dropped[:, start : start + count] = mean
    return dropped


def time_warp(x: Series, mean: Series, std: Series, level: float, rng: Random) -> Series:
    """Time runs at a smoothly changing speed, the same for all channels; both ends stay."""
    length = x.shape[1]
    speed = smooth_curve(length, level, rng).clip(SLOWEST)
    time = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    places = time / time[-1] * (length - 1)
    return np.stack([np.interp(places, np.arange(length), channel) for channel in x])


def magnitude_warp(x: Series, mean: Series, std: Series, level: float, rng: Random) -> Series:
    """The distance to the mean is multiplied by a smooth curve around 1, one for each channel."""
    curves = np.stack([smooth_curve(x.shape[1], level, rng) for _ in x])
    return mean + (x - mean) * curves


def missing_channels(x: Series, mean: Series, std: Series, level: float, rng: Random) -> Series:
    """This share of the channels, at least one and never all, is replaced by their means."""
    channels = len(x)
    count = max(1, round(level * channels))  # never all, because no level is above 0.7
    chosen = rng.permutation(channels)[:count]
    missing = x.copy()
    missing[chosen] = mean[chosen]
    return missing


def drift(x: Series, mean: Series, std: Series, level: float, rng: Random) -> Series:
    """Each channel goes up or down evenly, by ``level`` standard deviations at the end."""
    signs = rng.choice([-1, 1], size=(len(x), 1))
    return x + level * signs * std * np.linspace(0, 1, x.shape[1])


def smooth_curve(length: int, level: float, rng: Random) -> np.ndarray:
    """A cubic spline through points at equal distances, drawn from N(1, level²)."""
    points = rng.normal(1, level, KNOTS + 2)
    return CubicSpline(np.linspace(0, length - 1, KNOTS + 2), points)(np.arange(length))


# kind -> its function, and its level in the severities 1 to 5
KINDS: dict[str, tuple[Callable[..., Series], tuple[float, ...]]] = {
    "gaussian_noise": (gaussian_noise, (0.1, 0.2, 0.4, 0.6, 1.0)),
    "dropout": (dropout, (0.05, 0.1, 0.2, 0.3, 0.5)),
    "time_warp": (time_warp, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "magnitude_warp": (magnitude_warp, (0.1, 0.2, 0.3, 0.5, 0.7)),
    "missing_channels": (missing_channels, (0.1, 0.2, 0.3, 0.5, 0.7)),
    "drift": (drift, (0.25, 0.5, 1.0, 1.5, 2.0)),
}


def kinds_for(channels: int) -> list[str]:
    """The kinds that series of so many channels can have."""
    return [kind for kind in KINDS if channels > 1 or kind != "missing_channels"]


def corrupt_series(
    x: Series, kind: str, severity: int, mean: Series, std: Series, rng: Random
) -> Series:
    """A series (C, L) with a corruption.

    Args:
        kind: a key of ``KINDS``.
        severity: 1 to 5.
        mean, std: of each channel, (C, 1).
    """
    function, levels = KINDS[kind]
    return function(x, mean, std, levels[severity - 1], rng)
