"""Other ways to prepare samples for a teacher, each with what a person must set to get it.

A teacher that is used with other pixels than it was trained with is wrong more often, without an
error. Each alternative differs from the run in one thing: the normalization, the order of the
channels, the input size, or how image files are resized.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor, nn

from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.image_files import IMAGENET_MEAN, IMAGENET_STD, ImageFiles
from kd_lightning.models.classifier import Prepare

Statistics = tuple[Sequence[float], Sequence[float]]  # mean and std, of each channel or of all

RAW: Statistics = ((0.0,), (1.0,))
IMAGENET: Statistics = (IMAGENET_MEAN, IMAGENET_STD)
CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
OF_IMAGES: Mapping[str, Statistics] = {
    "with the mean and std of ImageNet": IMAGENET,
    "with mean 0.5 and std 0.5": ((0.5,), (0.5,)),
    "with inputs in [0, 1]": RAW,
    "with inputs in 0..255": ((0.0,), (1 / 255,)),
}
OF_SMALL_IMAGES: Mapping[int, Mapping[str, Statistics]] = {  # by their channels
    1: {"with the mean and std of MNIST": ((0.1307,), (0.3081,))},
    3: {"with the mean and std of CIFAR-10": CIFAR10},
}
SIDES = (32, 64, 128, 224)  # of images, on which most nets are trained
LARGEST_FACTOR = 8  # between such a side and that of the run; a pass costs its square
RESIZES: Sequence[Mapping[str, Any]] = (  # values of data.…
    {"resize": "crop", "crop_fraction": 0.875},
    {"resize": "crop", "crop_fraction": 1.0},
    {"resize": "squash"},
    {"resize": "letterbox"},
    {"interpolation": "bilinear"},
    {"interpolation": "bicubic"},
)


@dataclass(frozen=True)
class Alternative:
    """Another way to prepare samples.

    Attributes:
        words: how, for people, after "right on 77 %".
        advice: what gives it: overrides, or an instruction.
        prepare: the net's ``prepare`` -> another one; the net itself does not change.
        of_data: attributes of the data set that differ.
    """

    words: str
    advice: Sequence[str]
    prepare: Callable[[nn.Module], nn.Module] | None = None
    of_data: Mapping[str, Any] = field(default_factory=dict)

    def advice_in_words(self) -> str:
        """Such as "add data.resize=squash"."""
        overrides = [one for one in self.advice if is_override(one)]
        added = [f"add {' '.join(overrides)}"] if overrides else []
        return " and ".join([*added, *(one for one in self.advice if not is_override(one))])

    def and_also(self, other: "Alternative") -> "Alternative":
        """Both at once; one of them changes the net's input, the other one the data."""
        return Alternative(
            f"{self.words} and {other.words}",
            (*self.advice, *other.advice),
            self.prepare or other.prepare,
            {**self.of_data, **other.of_data},
        )


AS_IT_IS = Alternative("as it is", ())


def applied(net: nn.Module, alternative: Alternative) -> nn.Module:
    """A net that prepares its input in another way and shares everything else with ``net``."""
    if alternative.prepare is None:
        return net
    changed = copy.copy(net)
    changed._modules = {**net._modules, "prepare": alternative.prepare(net.prepare)}
    return changed


def can_prepare(net: nn.Module) -> bool:
    """Whether the net prepares its input as the nets of this package do."""
    return isinstance(getattr(net, "prepare", None), Prepare)


def normalizations(
    prepare: Prepare, own: Statistics, *, is_image: bool, keys: Collection[str]
) -> Iterator[Alternative]:
    """Those that are common, but for the one that the net has.

    Args:
        own: the statistics of the data.
        keys: of the net in the configuration.
    """
    channels = len(own[0])
    common = OF_IMAGES if is_image else {"with its inputs as they are": RAW}
    of_data = {"with the mean and std of the data": own}
    # the first of equally good ones is named: ImageNet's for photographs, whose own are similar
    known = {**common, **of_data} if channels == 3 else {**of_data, **common}
    known |= OF_SMALL_IMAGES.get(channels, {}) if is_image else {}
    seen = [of_channels((prepare.mean, prepare.std) if prepare.mean is not None else RAW, channels)]
    for words, statistics in known.items():
        values = of_channels(statistics, channels)
        if values is None or any(torch.allclose(values, s, rtol=1e-2, atol=1e-3) for s in seen):
            continue
        seen.append(values)
        # a mean and a std that are exactly the data's would count as not given
        rounded = [shown(row, 5 if words in of_data else 6) for row in values]
        advice = [setting(n, v, keys) for n, v in zip(("mean", "std"), rounded, strict=True)]
        yield Alternative(words, advice, lambda p, values=values: with_statistics(p, values))
    if not is_image:
        advice = "normalize each series of the files to mean 0 and std 1"
        yield Alternative(
            "with each series normalized", [advice], lambda p: nn.Sequential(EachSeries(), p)
        )


def of_channels(statistics: Sequence[Any], channels: int) -> Num[Tensor, "2 C"] | None:
    """Mean and std for this number of channels; for one (grey), the means over the colours. None:
    they are for another number.
    """
    rows = torch.stack([torch.as_tensor(row, dtype=torch.float32).cpu() for row in statistics])
    if channels == 1:
        return rows.mean(1, keepdim=True)
    return rows.expand(2, channels) if rows.shape[1] in (1, channels) else None


def with_statistics(prepare: Prepare, values: Num[Tensor, "2 C"]) -> Prepare:
    changed = copy.deepcopy(prepare)
    for name, row in zip(("mean", "std"), values, strict=True):
        changed.register_buffer(name, row.clone())
    return changed


class EachSeries(nn.Module):
    """Normalizes each channel of each series to mean 0 and standard deviation 1."""

    def forward(self, x: Num[Tensor, "B C L"]) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True).clamp_min(1e-6)


class ReversedChannels(nn.Module):
    """RGB -> BGR."""

    def forward(self, x: Num[Tensor, "B C H W"]) -> Tensor:
        return x.flip(1)


def channel_orders(channels: int) -> Iterator[Alternative]:
    if channels == 3:
        advice = "reverse the input channels of its first convolution in the file (weight.flip(1))"
        yield Alternative(
            "with BGR images", [advice], lambda p: nn.Sequential(ReversedChannels(), p)
        )


def input_sizes(prepare: Prepare, size: int, keys: Collection[str]) -> Iterator[Alternative]:
    """Other sizes to which the net resizes its images; not all nets can take all of them.

    Args:
        size: side of the data's images.
    """
    now = prepare.size or size
    for side in sorted({*SIDES, size} - {now}):
        if max(side, now) <= LARGEST_FACTOR * min(side, now):
            advice = setting("input_size", str(side), keys)  # null would be the file's
            yield Alternative(
                f"with images of {side} x {side}", [advice], lambda p, s=side: with_size(p, s)
            )


def with_size(prepare: Prepare, size: int) -> Prepare:
    changed = copy.deepcopy(prepare)
    changed.size = size
    return changed


def resizes(data: ClassificationData) -> Iterator[Alternative]:
    """Other ways to resize image files, for data sets that can do so."""
    if not isinstance(data, ImageFiles):
        return
    for values in RESIZES:
        if any(getattr(data, name) != value for name, value in values.items()):
            advice = [f"data.{name}={value}" for name, value in values.items()]
            yield Alternative(f"with {' '.join(advice)}", advice, of_data=values)


def is_override(advice: str) -> bool:
    return advice.startswith(("method.teacher.", "data."))


def setting(name: str, value: str, keys: Collection[str]) -> str:
    """The override of a key of the teacher; for a net without this key, what its code must do."""
    if name in keys:
        return f"method.teacher.{name}={value}"
    return f"write {name}={value} into the code of the net"


def shown(values: Tensor, digits: int = 6) -> str:
    return f"[{','.join(f'{value:.{digits}g}' for value in values.tolist())}]"
