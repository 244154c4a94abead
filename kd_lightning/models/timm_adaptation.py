"""Adapts a timm net: separates its head, adds dropout after its stages, gives it a small stem.

One forward pass (``record_outputs``) shows what a net supports; the rest raises ``UserError``. The
head is replaced by an identity, so that trunk and head together compute exactly what the timm net
does.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.checkpoints import KEY, first_line

Outputs = Mapping[str, list]  # name of a module ("" is the net) -> its outputs, one for each call


@torch.no_grad()
def record_outputs(net: nn.Module, name: str, in_chans: int, side: int) -> Outputs:
    """The outputs of the net, its classifier and its stages for one image, in eval mode.

    No random numbers are drawn, and no buffer changes.

    Raises:
        UserError: the net cannot take images of this size.
    """
    recorded = ["", head_name(net), *stage_names(net)]
    outputs: dict[str, list] = {}
    handles = [
        module.register_forward_hook(
            lambda module, inputs, output, path=path: outputs.setdefault(path, []).append(output)
        )
        for path, module in net.named_modules()
        if path in recorded
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
    return outputs


def head_name(net: nn.Module) -> str | None:
    """The name of the net's classifier; None if there are several, or if it is not a module."""
    layer = net.get_classifier()
    return next((name for name, module in net.named_modules() if module is layer), None)


def stage_names(net: nn.Module) -> list[str]:
    """The last modules of the net's stages, according to its ``feature_info``."""
    infos = getattr(net, "feature_info", None)
    return [info["module"] for info in infos] if isinstance(infos, list) else []


def remove_head(net: nn.Module, name: str, outputs: Outputs) -> tuple[nn.Linear, str]:
    """Replaces the net's last linear layer by an identity. Returns the layer and its name.

    A 1 x 1 convolution on pooled features counts as a linear layer. (``reset_classifier(0)`` would
    also remove the layers that some nets have before it.)

    Raises:
        UserError: the net has no such layer, or more than a reshape follows it.
    """
    path = head_name(net)
    layer = net.get_classifier()
    pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
    if not (pointwise or isinstance(layer, nn.Linear)) or not is_final_output(
        outputs.get(path), outputs[""]
    ):
        raise UserError(
            f"{name} does not end with one linear layer, whose input would be the features: choose "
            "another net (…name=…)"
        )
    parent, _, child = path.rpartition(".")
    setattr(net.get_submodule(parent), child, nn.Identity())
    return (conv_to_linear(layer) if pointwise else layer), path


def is_final_output(of_layer: list | None, of_net: list) -> bool:
    """Whether the layer was called once, and the net returned its output, at most reshaped."""
    if of_layer is None or len(of_layer) != 1:
        return False
    return torch.equal(of_layer[0].flatten(1), of_net[0])


def conv_to_linear(layer: nn.Conv2d) -> nn.Linear:
    """The linear layer that does the same as a 1 x 1 convolution on a 1 x 1 map."""
    linear = nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias is not None)
    with torch.no_grad():
        for ours, theirs in zip(linear.parameters(), layer.parameters(), strict=True):
            ours.copy_(theirs.view_as(ours))
    return linear


class DropoutHook:
    """A forward hook that applies dropout to a module's output.

    An object and not a closure: ``copy.deepcopy`` of the net then also copies the dropout in this
    hook. A closure would keep using the dropout of the original net.
    """

    def __init__(self, dropout: nn.Dropout) -> None:
        self.dropout = dropout

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        return self.dropout(output)


def add_block_dropout(net: nn.Module, name: str, rate: float, outputs: Outputs) -> None:
    """Adds dropout after every stage, as ``net.block_dropout``. Names of weights do not change.

    Raises:
        UserError: a stage does not run once and return one tensor, or there are no stages.
    """
    stages = stage_names(net)
    of_stages = [outputs.get(stage, []) for stage in stages]
    if not stages or any(len(o) != 1 or not isinstance(o[0], Tensor) for o in of_stages):
        raise UserError(
            f"{name} has no stages after which dropout can be added: expected 0 (…block_dropout=…)"
        )
    net.block_dropout = nn.ModuleList(nn.Dropout(rate) for _ in stages)
    for stage, dropout in zip(stages, net.block_dropout, strict=True):
        net.get_submodule(stage).register_forward_hook(DropoutHook(dropout))


def use_small_stem(net: nn.Module, name: str, pretrained: bool) -> None:
    """Removes the strides of the stem, so that it keeps the size of small images.

    Of a ResNet: its 7 x 7 convolution and pooling. Of a MobileNet: the stride of its convolution.
    """
    first, pool = getattr(net, "conv1", None), getattr(net, "maxpool", None)
    if isinstance(first, nn.Conv2d) and pool is not None:
        if pretrained:
            raise UserError(
                f"timm has no weights for {name} with a small stem: expected none or a file "
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
        f"{name} has no small stem: only ResNets, MobileNets and EfficientNets whose stem has one "
        "strided convolution do (…small_stem=false)"
    )
