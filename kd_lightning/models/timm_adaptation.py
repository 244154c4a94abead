"""Taking a timm net apart: its head out, dropout after its stages, its stem made for small images.

A look at one forward pass (``trace``) decides what a net can honour; the rest is refused. The head
is replaced by an identity, so that trunk and head together are the timm net exactly.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.weights import KEY, first_line

Trace = Mapping[str, list]  # name of a module ("" is the net) -> what it gave, call by call


@torch.no_grad()
def trace(net: nn.Module, name: str, in_chans: int, side: int) -> Trace:
    """What the net, its classifier and its stages give for one image, in eval mode.

    No random numbers are drawn, and no buffer changes.

    Raises:
        UserError: the net cannot take images of this side.
    """
    watched = ["", head_name(net), *stage_names(net)]
    seen: dict[str, list] = {}
    handles = [
        module.register_forward_hook(
            lambda module, inputs, output, path=path: seen.setdefault(path, []).append(output)
        )
        for path, module in net.named_modules()
        if path in watched
    ]
    training = net.training
    try:
        net.eval()(torch.linspace(-1, 1, in_chans * side * side).view(1, in_chans, side, side))
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"{name} cannot take images of {side} x {side} ({first_line(error)}): "
            "choose another size (…input_size=…)"
        ) from error
    net.train(training)
    for handle in handles:
        handle.remove()
    return seen


def head_name(net: nn.Module) -> str | None:
    """Where the net's classifier is; None where there are several, or it is no module."""
    layer = net.get_classifier()
    return next((name for name, module in net.named_modules() if module is layer), None)


def stage_names(net: nn.Module) -> list[str]:
    """The modules that the net's ``feature_info`` names as the ends of its stages."""
    infos = getattr(net, "feature_info", None)
    return [info["module"] for info in infos] if isinstance(infos, list) else []


def take_head(net: nn.Module, name: str, seen: Trace) -> tuple[nn.Linear, str]:
    """The net's last linear layer, replaced by an identity, and where it was.

    A 1 x 1 convolution on pooled features is that layer too. (``reset_classifier(0)`` would lose
    what some nets have before theirs.)

    Raises:
        UserError: there is no such layer, or more than a reshape follows it.
    """
    path = head_name(net)
    layer = net.get_classifier()
    pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
    if not (pointwise or isinstance(layer, nn.Linear)) or not is_last(seen[""], seen.get(path)):
        raise UserError(
            f"{name} does not end with one linear layer, which features are taken before: choose "
            "another net (…name=…)"
        )
    parent, _, child = path.rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return (as_linear(layer) if pointwise else layer), path


def is_last(logits: list, given: list | None) -> bool:
    """Whether the net gave what its classifier gave, in its one call, at most reshaped."""
    return given is not None and len(given) == 1 and torch.equal(given[0].flatten(1), logits[0])


def as_linear(layer: nn.Conv2d) -> nn.Linear:
    """The linear layer that a 1 x 1 convolution is on a 1 x 1 map."""
    linear = nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias is not None)
    with torch.no_grad():
        for mine, theirs in zip(linear.parameters(), layer.parameters(), strict=True):
            mine.copy_(theirs.view_as(mine))
    return linear


class DropOutput:
    """A forward hook that drops a module's output.

    A plain object, so that ``copy.deepcopy`` copies the dropout it holds together with the net
    that owns it; a closure would go on using the original's.
    """

    def __init__(self, dropout: nn.Dropout) -> None:
        self.dropout = dropout

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return self.dropout(output)


def add_block_dropout(net: nn.Module, name: str, rate: float, seen: Trace) -> None:
    """Dropout after every stage, held as ``net.block_dropout``; the names of weights stay.

    Raises:
        UserError: the net has no stages that give one tensor, once.
    """
    stages = stage_names(net)
    given = [seen.get(stage, []) for stage in stages]
    if not stages or any(len(g) != 1 or not isinstance(g[0], Tensor) for g in given):
        raise UserError(
            f"{name} has no stages that dropout can stand after: expected 0 (…block_dropout=…)"
        )
    net.block_dropout = nn.ModuleList(nn.Dropout(rate) for _ in stages)
    for stage, dropout in zip(stages, net.block_dropout, strict=True):
        net.get_submodule(stage).register_forward_hook(DropOutput(dropout))


def use_small_stem(net: nn.Module, name: str, pretrained: bool) -> None:
    """Takes the stem's strides out: ResNet's 7 x 7 convolution and pooling, MobileNet's stride."""
    first, pool = getattr(net, "conv1", None), getattr(net, "maxpool", None)
    if isinstance(first, nn.Conv2d) and pool is not None:
        if pretrained:
            raise UserError(
                f"timm's weights for {name} have none for a small stem: expected none or a file "
                f"({KEY}=…), or the large stem (…small_stem=false)"
            )
        net.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
        return
    first = getattr(net, "conv_stem", None)
    if isinstance(first, nn.Conv2d) and first.kernel_size == (3, 3):
        first.stride = (1, 1)
        return
    raise UserError(
        f"{name} has no small stem, only ResNets, MobileNets and EfficientNets with one strided "
        "first convolution have (…small_stem=false)"
    )
