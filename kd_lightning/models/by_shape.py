"""A net chosen by the shape of the samples, for data whose shape only their file knows.

The configuration holds a net for each kind of sample. When a run has read its data,
``choose_nets`` puts the chosen net in that place, so tables and records name it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

from omegaconf import DictConfig, OmegaConf

from kd_lightning.base.ranges import ShareBelowOne
from kd_lightning.models.assemble import CommonArguments
from kd_lightning.models.classifier import Classifier

TARGET = f"{__name__}.net_by_shape"
KINDS = ("series", "images", "small")
LEAST = 8  # steps or pixels a side from which convolutions with strides have room


def net_by_shape(
    *,
    shape: Sequence[int],
    series: Mapping[str, Any],
    images: Mapping[str, Any],
    small: Mapping[str, Any],
    block_dropout: ShareBelowOne = 0.0,
    **common: Unpack[CommonArguments],
) -> Classifier:
    """The net for samples of this shape.

    Args:
        shape: of one sample, (C, L) or (C, H, W).
        series, images: the nets for these, each with ``_target_`` and its own arguments.
        small: the net for series and images with less than 8 steps or pixels a side.
        block_dropout: of the net.
    """
    from hydra.utils import instantiate  # here: to load a student's file takes no Hydra

    net = {"series": series, "images": images, "small": small}[kind_of(shape)]
    return instantiate({**common, "block_dropout": block_dropout, **net}, _convert_="object")


def kind_of(shape: Sequence[int]) -> str:
    """The kind of samples of this shape, (C, L) or (C, H, W): one of ``KINDS``."""
    _, *sides = shape
    if min(sides) < LEAST:
        return "small"
    return "series" if len(sides) == 1 else "images"


def net_for(config: DictConfig, kind: str) -> DictConfig:
    """The configuration of the net that a configuration of ``net_by_shape`` has for a kind."""
    common = [key for key in config if key not in ("shape", "_recursive_", *KINDS)]
    return OmegaConf.merge(OmegaConf.masked_copy(config, common), config[kind])


def choose_nets(method: DictConfig, shape: Sequence[int]) -> None:
    """Replaces each net of ``net_by_shape`` in a method's configuration by that for this shape."""
    for section, key in list(places(method)):
        # an interpolation means another net of the method, which is chosen in its own place
        if not OmegaConf.is_interpolation(section, key) and section[key]._target_ == TARGET:
            section[key] = net_for(section[key], kind_of(shape))


def places(method: DictConfig) -> Iterator[tuple[DictConfig, str]]:
    """Where the nets of a method are: the section and the key of each."""
    if "teacher" in method:
        yield method, "teacher"
    for key in method.students:
        yield method.students, key
