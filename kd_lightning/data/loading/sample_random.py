"""Random numbers for the samples of a batch: number k of sample i is a hash of (stream, i, k), so
it is bit for bit the same in any batch and on any device.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15  # the increment of the SplitMix64 generator


class PerSampleRandom:
    """Random numbers for the samples of a batch; each sample has its own stream.

    Args:
        stream: seed in [0, 2^63) that all samples share, one for each run and epoch.
        indices: indices of the samples, on the device on which the random numbers are needed.
    """

    def __init__(self, stream: int, indices: Int[Tensor, "B"]) -> None:
        self._start = _hash(_hash(indices * _as_int64(GOLDEN) + stream) + stream)
        self._count = 0

    def uniform(self) -> Float[Tensor, "B"]:
        """The next random number of each sample, in [0, 1)."""
        return self.uniforms(1)[0]

    def uniforms(self, count: int) -> Float[Tensor, "count B"]:
        """The next ``count`` random numbers of each sample, in [0, 1)."""
        steps = torch.arange(1, count + 1, device=self._start.device).unsqueeze(1)
        bits = _hash(self._start + (steps + self._count) * _as_int64(GOLDEN))
        self._count += count
        return _shift_right(bits, 40).float() * 2.0**-24

    def integers(self, count: int | Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """The next random integer of each sample, in [0, count)."""
        return (self.uniform() * count).long()


def _as_int64(value: int) -> int:
    """The lowest 64 bits of ``value`` as a signed integer, as in an int64 tensor."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical right shift: zeros are shifted in, as for an unsigned integer."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _hash(bits: Tensor) -> Tensor:
    """The finalizer of SplitMix64 (Steele et al. 2014), in 64 bits with overflow."""
    bits = (bits ^ _shift_right(bits, 30)) * _as_int64(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shift_right(bits, 27)) * _as_int64(0x94D049BB133111EB)
    return bits ^ _shift_right(bits, 31)
