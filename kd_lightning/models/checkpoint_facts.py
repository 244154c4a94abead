"""What a file says about its net besides the weights: its classes, and the input of its training.

timm, torchvision, Lightning and the Hugging Face hub use different names for the same fact. A value
that cannot be understood counts as not said.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kd_lightning.base.interpolations import INTERPOLATIONS, OF_NETS

# Mappings in which such facts are, inside the file
SECTIONS = (
    *("args", "hparams", "hyper_parameters", "config", "cfg", "meta", "metadata", "info"),
    *("pretrained_cfg", "data_config", "preprocessing", "model", "data", "dataset_meta"),
)
OF_LIGHTNING = ("hparams", "hyper_parameters")
CROP_MODES = {"center": "crop", "squash": "squash", "border": "letterbox"}  # timm's -> data.resize


@dataclass(frozen=True)
class Facts:
    """What is known about a net's input and classes; None: not said.

    Attributes:
        architecture: timm's name of the net.
        class_names: the class of each logit.
        mean, std: of each channel, in units of a [0, 1] image or of the raw series.
        input_size: side of the images.
        interpolation: with which they were resized: nearest-exact, bilinear or bicubic.
        crop_fraction: side of the centre crop / short side after resizing.
        resize: how a file became a square: crop, squash or letterbox.
        fingerprint: of the data of its training, in a student's file of this package.
        is_raw: whether the net is known not to normalize its input.
        of_samples: how the samples came to the net: ``Resizing`` apart from the net's own
            ``input_size`` and ``interpolation``, in a student's file of this package.
    """

    architecture: str | None = None
    class_names: list[str] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    input_size: int | None = None
    interpolation: str | None = None
    crop_fraction: float | None = None
    resize: str | None = None
    fingerprint: str | None = None
    is_raw: bool | None = None
    of_samples: Mapping[str, Any] | None = None

    def or_else(self, other: Self) -> Self:
        """These facts, and those of ``other`` where these say nothing."""
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        theirs = {name: getattr(other, name) for name in mine}
        if mine["mean"] is not None:
            theirs["std"] = None  # the two belong together
        return type(self)(**{k: theirs[k] if v is None else v for k, v in mine.items()})


def as_mapping(content: Any) -> Mapping[Any, Any] | None:
    """A mapping, or the attributes of an ``argparse.Namespace``; None for anything else."""
    if isinstance(content, argparse.Namespace):
        return vars(content)
    if isinstance(content, DictConfig):  # as it is, for its references may lead nowhere
        content = OmegaConf.to_container(content, resolve=False)
    return content if isinstance(content, Mapping) else None


def facts_of(*contents: Mapping[Any, Any]) -> Facts:
    """The facts in these mappings and in their sections; the first that says something counts."""
    facts = Facts()
    for content in contents:
        for section in _sections(content):
            facts = facts.or_else(_facts_here(section))
    return facts


def facts_of_student(given: Mapping[str, Any]) -> Facts:
    """The facts in the section ``input`` of a student's file of this package."""
    names = {"size": "image_size", "resize": "resize", "crop_fraction": "crop_fraction"}
    names["interpolation"] = "interpolation"
    of_samples = {ours: given[name] for name, ours in names.items() if given.get(name) is not None}
    mean, std = given.get("mean"), given.get("std")
    return Facts(
        mean=mean,
        std=std,
        input_size=given.get("net_size"),
        interpolation=given.get("net_interpolation"),
        is_raw=mean is None and std is None,
        of_samples=of_samples if given.get("kind") == "image" else {},
    )


def _sections(content: Mapping[Any, Any], depth: int = 0) -> Iterator[Mapping[Any, Any]]:
    yield content
    for name in SECTIONS:
        inner = as_mapping(content[name]) if name in content else None
        if inner is not None and name in OF_LIGHTNING and isinstance(inner.get("input_size"), int):
            # there it is usually the number of inputs of a layer
            inner = {key: value for key, value in inner.items() if key != "input_size"}
        if inner is not None and depth < 3:
            yield from _sections(inner, depth + 1)


def _facts_here(section: Mapping[Any, Any]) -> Facts:
    mean, std = _statistics(section)
    crop = _number(section.get("crop_pct", section.get("crop_fraction")))
    interpolation = str(section.get("interpolation")).lower()
    interpolation = OF_NETS.get(interpolation, interpolation)
    mode = section.get("crop_mode", section.get("resize"))
    return Facts(
        architecture=_text(section.get("architecture", section.get("arch"))),
        class_names=_class_names(section),
        mean=mean,
        std=std,
        input_size=_side(section),
        interpolation=interpolation if interpolation in INTERPOLATIONS else None,
        crop_fraction=crop if crop and 0 < crop <= 1 else None,
        resize=CROP_MODES.get(mode, mode if mode in CROP_MODES.values() else None)
        if isinstance(mode, str)
        else None,
    )


def _statistics(section: Mapping[Any, Any]) -> tuple[list[float] | None, list[float] | None]:
    mean, std = (_numbers(section.get(name)) for name in ("mean", "std"))
    if mean is None or std is None or len(mean) != len(std) or min(std) <= 0:
        return None, None
    if len(mean) == 3 and _are_of_bytes(mean, std):
        mean, std = ([value / 255 for value in values] for values in (mean, std))
    return mean, std


def _are_of_bytes(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether these are statistics of images in 0..255: also 0 and 255, or no division by a std."""
    if all(20 <= value <= 255 for value in std):
        return True
    return set(std) == {1.0} and all(20 <= value <= 255 for value in mean)


def _side(section: Mapping[Any, Any]) -> int | None:
    """The side of square images: a number, or the last of (channels, height, width); the first if
    the last is a number of channels.
    """
    for name in ("input_size", "img_size", "image_size"):
        value = section.get(name)
        if isinstance(value, Sequence) and not isinstance(value, str) and value:
            value = value[0] if len(value) == 3 and value[-1] in (1, 3) else value[-1]
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _class_names(section: Mapping[Any, Any]) -> list[str] | None:
    for name in ("class_names", "classes", "label_names", "CLASSES"):
        value = section.get(name)
        if isinstance(value, Sequence) and not isinstance(value, str) and _all_text(value):
            return list(value)
    for name in ("idx_to_class", "id2label"):
        if names := _in_order(as_mapping(section.get(name)) or {}):
            return names
    for name in ("class_to_idx", "label2id"):
        given = as_mapping(section.get(name)) or {}
        if names := _in_order({index: label for label, index in given.items()}):
            return names
    return None


def _all_text(values: Sequence[Any]) -> bool:
    return len(values) > 0 and all(isinstance(value, str) for value in values)


def _in_order(names: Mapping[Any, Any]) -> list[str] | None:
    """The names by their indices, which must be 0, 1, …"""
    try:
        ordered = [name for _, name in sorted((int(index), name) for index, name in names.items())]
    except (TypeError, ValueError):
        return None
    complete = {int(index) for index in names} == set(range(len(names)))
    return ordered if complete and _all_text(ordered) else None


def _numbers(value: Any) -> list[float] | None:
    if isinstance(value, Tensor):
        value = value.flatten().tolist()
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return None
    numbers = [_number(one) for one in value]
    return None if None in numbers else numbers


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
