"""The outputs of named layers of a net, without editing the net.

A layer is a module, by its dotted name: "trunk.stage2", "trunk.layer3.0.conv1".
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Num
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.base.words import shorten
from kd_lightning.models.modes import in_mode

Shape = tuple[int, ...]


class LayerOutputs:
    """Records what named layers of a net return.

        layers = LayerOutputs(net, ["trunk.stage2"])
        with layers.record() as outputs:
            net(x)
        outputs["trunk.stage2"]

    The hooks are registered once, here, so that a compiler knows them before it follows a step.
    Outside of ``record`` they do nothing. A copy of the net (``deepcopy``) carries hooks that
    record nothing; weights and checkpoints carry none.

    An output is recorded as the next layer gets it. It is cloned, because the next layer of many
    nets overwrites it (ReLU in place), and keeps its graph if it has one.

    Args:
        net: whose forward passes are recorded.
        names: of its layers.

    Raises:
        AttributeError: the net has no such layer.
    """

    def __init__(self, net: nn.Module, names: Iterable[str]) -> None:
        self.is_recording = False
        self.outputs: dict[str, Tensor] = {}
        self.handles = [
            net.get_submodule(name).register_forward_hook(partial(self._record, name))
            for name in names
        ]

    def _record(self, name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if self.is_recording:
            self.outputs[name] = output.clone()

    # A generator, and not __enter__ of this object: a compiler of torch 2.11 follows only context
    # managers that are made inside of the step.
    @contextmanager
    def record(self) -> Iterator[dict[str, Tensor]]:
        """Records what the layers return in the net's passes inside of ``with``."""
        self.outputs = {}
        self.is_recording = True
        try:
            yield self.outputs
        finally:
            self.is_recording = False
            self.outputs = {}  # the caller holds them, and nobody else

    def __deepcopy__(self, memo: dict) -> "LayerOutputs":
        copied = object.__new__(LayerOutputs)
        memo[id(self)] = copied
        copied.is_recording, copied.outputs, copied.handles = False, {}, []
        return copied

    def remove(self) -> None:
        """Removes the hooks from the net."""
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def layer_shapes(net: nn.Module, x: Num[Tensor, "1 C *size"]) -> dict[str, Shape]:
    """The layers that can be recorded -> the shape of their output for one sample.

    These layers run once in a pass and return one tensor: a vector (D), or a feature map with as
    many dimensions as the input, (C, L) or (C, H, W). The tokens of a transformer are neither.
    Channels are assumed to come first, which a shape does not tell.
    """
    outputs: dict[str, list] = {}
    handles = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: outputs.setdefault(name, []).append(output)
        )
        for name, module in net.named_modules()
        if name
    ]
    try:
        with in_mode(net, "eval"):
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: tuple(outputs[name][0].shape[1:])
        for name, _ in net.named_modules()
        if len(outputs.get(name, ())) == 1 and is_layer_output(outputs[name][0], x)
    }


def learning_layers(net: nn.Module, x: Num[Tensor, "1 C *size"], names: Iterable[str]) -> set[str]:
    """The layers among ``names`` up to which something learns: a gradient at their output reaches
    weights of the net.
    """
    layers = LayerOutputs(net, names)
    try:
        with torch.enable_grad(), in_mode(net, "eval"), layers.record() as outputs:
            net(x)
    finally:
        layers.remove()
    return {name for name, output in outputs.items() if output.requires_grad}


def is_layer_output(output: object, x: Tensor) -> bool:
    """Whether it is a batch of vectors or feature maps, one for each sample of ``x``."""
    is_one = isinstance(output, Tensor) and output.ndim in (2, x.ndim)
    return is_one and output.shape[0] == len(x) and output.is_floating_point()


def check_layer(
    name: str, net: nn.Module, shapes: Mapping[str, Shape], whose: str, key: str
) -> None:
    """Raises ``UserError`` for a layer that cannot be recorded.

    Args:
        shapes: ``layer_shapes`` of the net.
        whose: the net, as the message names it.
        key: the key that named the layer.
    """
    if name in shapes:
        return
    exists = name in dict(net.named_modules())
    near = [] if exists else difflib.get_close_matches(name, shapes, n=5, cutoff=0.5)
    names = list(dict.fromkeys([*near, *outline(net, shapes)])) or list(shapes)
    fault = f"unknown layer '{name}' of {whose}"
    if exists:
        fault = f"layer '{name}' of {whose} returns no single vector or feature map in a pass"
    raise UserError(f"{fault}: expected one of {shorten(names, 12)} ({key}=…)")


def outline(net: nn.Module, names: Iterable[str]) -> list[str]:
    """The layers among ``names`` that have weights: the net's parts and stages, or else all."""
    learnt = [n for n in names if next(net.get_submodule(n).parameters(), None) is not None]
    return [name for name in learnt if name.count(".") <= 1] or learnt
