"""Size and speed of exported files and of the PyTorch student."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kd_lightning.evaluation.metrics import median_seconds


@dataclass(frozen=True)
class Speed:
    """Times of the forward pass on the CPU, medians of repeated passes.

    Attributes:
        latency: milliseconds for one sample.
        throughput: samples per second in a batch.
    """

    latency: float
    throughput: float


def speed_of(run: Callable[[Tensor], Tensor], batch: Tensor) -> Speed:
    """Measures a function of a batch of inputs."""
    return Speed(
        latency=median_seconds(run, batch[:1]) * 1000,
        throughput=len(batch) / median_seconds(run, batch),
    )


def bytes_of(folder: Path, names: Sequence[str]) -> int:
    """Size on disk of files in a folder."""
    return sum((folder / name).stat().st_size for name in names)
