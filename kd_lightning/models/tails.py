"""The part of a net after one of its layers, as a net by itself."""

from collections import OrderedDict

import torch
from jaxtyping import Num
from torch import Tensor, fx, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.layer_outputs import LayerOutputs
from kd_lightning.models.modes import in_mode

INSIDE = "trunk."


class PathTracer(fx.Tracer):
    """Follows the forward functions of the modules that contain a layer. All other modules are
    single steps, whatever they do inside.

    Args:
        layer: its name in the traced module.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not self.layer.startswith(f"{name}.")


def tail_after(net: nn.Module, layer: str, example: Num[Tensor, "1 C *size"]) -> nn.Module:
    """The part of a net after a layer: the layer's output (B, D, *size) -> logits (B, C).

    It shares its modules with the net, and has none that the net runs before the layer.

    Args:
        net: a ``Classifier``.
        layer: of its trunk, such as "trunk.stage2". It must be all that the rest of the net reads.
        example: one sample, with which the part is compared with the net.

    Raises:
        UserError: the net cannot be cut there.
    """
    name = layer.removeprefix(INSIDE)
    try:
        trunk = fx.GraphModule(net.trunk, PathTracer(name).trace(net.trunk))
        cut_before(trunk, name)
        tail = nn.Sequential(OrderedDict(trunk=trunk, dropout=net.dropout, head=net.head))
        check_tail(tail, net, layer, example)
    except Exception as error:  # a forward function that is traced may raise anything
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the part of a net ({type(net.trunk).__name__}) after its layer {layer} cannot be "
            f"taken out: {reason}; choose another net (model@…=…)"
        ) from error
    return tail


def cut_before(net: fx.GraphModule, layer: str) -> None:
    """Takes out a layer and all that runs for it; its output is then the input.

    Raises:
        ValueError: the layer does not run exactly once, or the rest reads something else too.
    """
    nodes = list(net.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    calls = [node for node in nodes if node.op == "call_module" and node.target == layer]
    if len(calls) != 1:
        raise ValueError(f"it runs {len(calls)} times in a pass")
    with net.graph.inserting_before(inputs[0]):
        calls[0].replace_all_uses_with(net.graph.placeholder("feature_map"))
    net.graph.eliminate_dead_code()
    for node in inputs:
        if node.users:
            raise ValueError("what follows it also reads what comes before it")
        net.graph.erase_node(node)
    net.delete_all_unused_submodules()
    net.recompile()


def check_tail(tail: nn.Module, net: nn.Module, layer: str, example: Tensor) -> None:
    """Raises ``ValueError`` unless the tail gives the net's logits for the layer's output."""
    layers = LayerOutputs(net, [layer])
    try:
        with torch.no_grad(), in_mode(net, "eval"), layers.record() as outputs:
            whole = net(example).logits
            part = tail.eval()(outputs[layer])
    finally:
        layers.remove()
    tail.train()
    if not torch.allclose(part, whole, rtol=1e-4, atol=1e-5):
        raise ValueError("it does not compute what the net computes")
