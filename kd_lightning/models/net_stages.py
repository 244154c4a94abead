"""The stages of a net: where its feature maps can be taken, without a name from a person."""

import math
import re
from collections.abc import Sequence

import torch
from jaxtyping import Num
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.layer_outputs import LayerOutputs, Shape, layer_shapes, outline
from kd_lightning.models.modes import in_mode
from kd_lightning.models.timm_adaptation import stage_names

POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
OWN = re.compile(r"trunk\.stage\d+")  # as the nets of this package name them


def net_stages(net: nn.Module, x: Num[Tensor, "1 C *size"]) -> dict[str, Shape]:
    """The layers that end the stages of a net, in the order in which they run -> the shape of their
    feature map for one sample, (D, L) or (D, H, W).

    The last one is the last feature map of the net, which is pooled after it. The others are those
    that this package or timm's ``feature_info`` names. Of any other net they are the parts of the
    trunk that learn; of several parts in a row with maps of one shape the last.

    Args:
        net: a ``Classifier``.
        x: one sample.

    Returns:
        {} for a net without feature maps, such as a perceptron or a vision transformer.
    """
    maps = before_the_pool(net, maps_in_order(net, x))
    learning = [name for name in maps if learns(net.get_submodule(name))]
    named = named_stages(net)
    if not learning or (named and not named & set(maps)):  # timm's stages may be of tokens
        return {}
    names = list(maps)
    end = names.index(learning[-1])
    while end + 1 < len(names) and maps[names[end + 1]] == maps[learning[-1]]:
        end += 1  # what follows with maps of this shape: an activation, a dropout, the parent
    stages = [name for name in learning if name in named]
    stages = stages or last_of_each_shape(outline(net, learning), maps)
    return {name: maps[name] for name in [*stages[:-1], names[end]]}


def require_stages(
    net: nn.Module, input_shape: Sequence[int], *, whose: str, key: str
) -> dict[str, Shape]:
    """``net_stages`` of a net that must have two or more.

    Args:
        input_shape: of one sample.
        whose: the net, as the message names it.
        key: the key that chooses the net.

    Raises:
        UserError: the net has fewer, or takes no such sample.
    """
    try:
        stages = net_stages(net, torch.zeros(1, *input_shape))
    except (UserError, RuntimeError) as error:
        raise UserError(
            f"input_shape must be that of a sample, and {whose} takes none of {tuple(input_shape)} "
            "(method.input_shape=…)"
        ) from error
    if len(stages) < 2:
        raise UserError(
            f"{whose} must have two stages with feature maps or more, it has {len(stages)}: choose "
            f"a convolutional net ({key}=…)"
        )
    return stages


def last_map(net: nn.Module, input_shape: Sequence[int]) -> tuple[str, Shape] | None:
    """The layer that gives the last feature map of ``net_stages``, and the shape of that map.

    Args:
        input_shape: of one sample.

    Returns:
        None for a net without feature maps.
    """
    stages = net_stages(net, torch.zeros(1, *input_shape))
    return list(stages.items())[-1] if stages else None


def before_the_pool(net: nn.Module, maps: dict[str, Shape]) -> dict[str, Shape]:
    """Without the net's last pooling over all positions, if that is a module that gives a map, and
    without what follows it.
    """
    pools = [n for n, name in enumerate(maps) if isinstance(net.get_submodule(name), POOLS)]
    if not pools or any(math.prod(shape[1:]) > 1 for shape in list(maps.values())[pools[-1] :]):
        return maps
    return dict(list(maps.items())[: pools[-1]])


def maps_in_order(net: nn.Module, x: Num[Tensor, "1 C *size"]) -> dict[str, Shape]:
    """The layers of the trunk with a feature map -> its shape, in the order in which they end."""
    shapes = {
        name: shape
        for name, shape in layer_shapes(net, x).items()
        if len(shape) > 1 and name.startswith("trunk")
    }
    layers = LayerOutputs(net, shapes)
    try:
        with torch.no_grad(), in_mode(net, "eval"), layers.record() as outputs:
            net(x)
    finally:
        layers.remove()
    return {name: shapes[name] for name in outputs}


def named_stages(net: nn.Module) -> set[str]:
    """The names of the stages by this package's or timm's own statement."""
    own = {name for name, _ in net.named_modules() if OWN.fullmatch(name)}
    return own | {f"trunk.{name}" for name in stage_names(getattr(net, "trunk", net))}


def learns(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def last_of_each_shape(names: list[str], maps: dict[str, Shape]) -> list[str]:
    """Of neighbours with maps of one shape, the last."""
    following = [*names[1:], None]
    return [
        name
        for name, after in zip(names, following, strict=True)
        if after is None or maps[after] != maps[name]
    ]
