"""Synthetic data for tests and dry runs: no download, any size, adjustable difficulty.

Each class is a smooth random pattern. A sample is the pattern of its class, randomly shifted, plus
white noise; more noise makes the task harder.

Dimensions: N samples, C channels, S side of an image or length of a series.
"""

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import Classes, Count, NotNegative, Range, Seed
from kd_lightning.base.streams import stream
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples

COARSE = 4  # a pattern is interpolated from this number of points a side, so that it is smooth
KINDS = {"series": (1, "linear"), "image": (2, "bilinear")}  # dimensions, interpolation mode


class Synthetic(ClassificationData):
    """Images, uint8 (N, C, S, S), or series, float32 (N, C, S), with classes of equal size.

    Args:
        kind: "image" or "series".
        num_classes: number of classes.
        channels: number of channels.
        size: side of an image, or length of a series.
        num_train: number of training samples; val is split off from them.
        num_test: number of test samples.
        noise: standard deviation of the noise; the patterns have standard deviation 1.
        data_seed: seed of patterns, shifts and noise; it is not the seed of the run.
    """

    has_files = False

    def __init__(
        self,
        *,
        kind: str,
        num_classes: Classes,
        channels: Count,
        size: Annotated[int, Range(least=COARSE)],
        num_train: Count,
        num_test: Count,
        noise: NotNegative,
        data_seed: Seed = 0,
        **common,
    ) -> None:
        super().__init__(**common)
        if kind not in KINDS:
            raise unknown("kind of data", kind, KINDS, "data.kind")
        if num_train < num_classes:
            raise UserError(
                f"data.num_train must be at least data.num_classes={num_classes}, got {num_train}"
            )
        self.kind = kind
        self.pattern_shape = (num_classes, channels, size)
        self.num_train = num_train
        self.num_test = num_test
        self.noise = noise
        self.data_seed = data_seed

    def load(self) -> Parts:
        patterns = self._patterns()
        return Parts(
            train=self._draw_samples(patterns, "train", self.num_train),
            test=self._draw_samples(patterns, "test", self.num_test),
            class_names=[f"pattern {i}" for i in range(len(patterns))],
            test_is="drawn as train is",
        )

    def _patterns(self) -> Float[Tensor, "classes C *size"]:
        """One pattern a class, each with mean 0 and standard deviation 1."""
        num_classes, channels, size = self.pattern_shape
        dimensions, mode = KINDS[self.kind]
        coarse = torch.randn(
            num_classes,
            channels,
            *[COARSE] * dimensions,
            generator=stream(self.data_seed, "synthetic", "patterns"),
        )
        smooth = F.interpolate(coarse, [size] * dimensions, mode=mode, align_corners=True)
        dims = list(range(1, smooth.ndim))
        return (smooth - smooth.mean(dims, keepdim=True)) / smooth.std(dims, keepdim=True)

    def _draw_samples(
        self, patterns: Float[Tensor, "classes C *size"], part: str, count: int
    ) -> Samples:
        generator = stream(self.data_seed, "synthetic", part)
        y = torch.arange(count) % len(patterns)
        size, dims = patterns.shape[-1], list(range(1, patterns.ndim - 1))
        shifts = torch.randint(size // 4 + 1, (count, len(dims)), generator=generator).tolist()
        x = torch.stack(
            [
                patterns[label].roll(shift, dims)
                for label, shift in zip(y.tolist(), shifts, strict=True)
            ]
        )
        x = x + self.noise * torch.randn(x.shape, generator=generator)
        if self.kind == "image":  # byte range = mean ± 3 standard deviations of pattern + noise
            x = 127.5 + 127.5 / 3 * x / (1 + self.noise**2) ** 0.5
            x = x.round().clamp(0, 255).to(torch.uint8)
        return Samples(x, y)
