"""What named layers of a net give while it runs, without editing the net.

A layer is a module, by its dotted name: "trunk.stage2", "trunk.layer3.0.conv1". Hooks stand for one
pass only, so that a net never carries any to a copy, a checkpoint or a pickle.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Num
from torch import Tensor, nn

from kd_lightning.base.errors import UserError

Shape = tuple[int, ...]


@contextmanager
def tapped(net: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, a pass of ``net`` leaves what its layers gave in the dictionary: name -> output.

    As the next layer gets it: copied, because many nets then overwrite it (ReLUs in place), and
    with its graph, if there is one.
    """
    given: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        given[name] = output.clone()

    handles = [net.get_submodule(n).register_forward_hook(partial(keep, n)) for n in names]
    try:
        yield given
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def layer_shapes(net: nn.Module, x: Num[Tensor, "1 C *size"]) -> dict[str, Shape]:
    """The layers that can be tapped, and the shape of what each gives for one sample.

    Those that run once a pass and give one tensor: a vector (D), or a map of as many dimensions as
    the input, (C, L) or (C, H, W). Tokens of images are neither. Channels are taken to stand first,
    which a shape does not tell.
    """
    given: dict[str, list] = {}
    handles = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: given.setdefault(name, []).append(output)
        )
        for name, module in net.named_modules()
        if name
    ]
    modes = {module: module.training for module in net.modules()}
    try:
        net.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return {
        name: tuple(given[name][0].shape[1:])
        for name, _ in net.named_modules()
        if len(given.get(name, ())) == 1 and is_layer_output(given[name][0], x)
    }


def learning_layers(net: nn.Module, x: Num[Tensor, "1 C *size"], names: Iterable[str]) -> set[str]:
    """Those of the layers that a gradient at their output would teach something: one of what comes
    up to it, itself included, has weights that learn.
    """
    modes = {module: module.training for module in net.modules()}
    try:
        with torch.enable_grad(), tapped(net, names) as given:
            net.eval()(x)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return {name for name, output in given.items() if output.requires_grad}


def is_layer_output(output: object, x: Tensor) -> bool:
    """Whether it is a batch of vectors or maps, one for each sample of ``x``."""
    is_one = isinstance(output, Tensor) and output.ndim in (2, x.ndim)
    return is_one and output.shape[0] == len(x) and output.is_floating_point()


def check_layer(
    name: str, net: nn.Module, shapes: Mapping[str, Shape], whose: str, key: str
) -> None:
    """Raises ``UserError`` for a layer that cannot be tapped.

    Args:
        shapes: ``layer_shapes`` of the net.
        whose: the net, in a person's words.
        key: the key that named the layer.
    """
    if name in shapes:
        return
    exists = name in dict(net.named_modules())
    near = [] if exists else difflib.get_close_matches(name, shapes, n=5, cutoff=0.5)
    listed = listing(list(dict.fromkeys([*near, *outline(net, shapes)])) or list(shapes))
    fault = f"unknown layer '{name}' of {whose}"
    if exists:
        fault = f"layer '{name}' of {whose} gives no single vector or map per pass"
    raise UserError(f"{fault}: expected one of {listed} ({key}=…)")


def outline(net: nn.Module, names: Iterable[str]) -> list[str]:
    """The layers among ``names`` that learn: the net's parts and stages, or else smaller ones."""
    learnt = [n for n in names if next(net.get_submodule(n).parameters(), None) is not None]
    return [name for name in learnt if name.count(".") <= 1] or learnt


def listing(names: Sequence[str], shown: int = 12) -> str:
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
