"""Batch norms of a net that learns no more, taken into the convolutions and linear layers before.

In eval mode a batch norm multiplies each channel by a constant and adds another, which the layer
before it can do. Which layer that is follows from a look at one forward pass: no net is edited.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
FUNCTIONS = (F.conv1d, F.conv2d, F.conv3d, F.linear)


class Watch(TorchFunctionMode):
    """Sees which functions read what each layer gives.

    Attributes:
        readers: layer -> the batch norm that read its output, or None for anything else, in order.
        runs: layer or batch norm -> how often it ran.
        fits: layers whose outputs are the channels of a batch norm after them.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.layers, self.norms = {}, {}
        for name, module in net.named_modules():
            if isinstance(module, LAYERS):
                self.layers[id(module.weight)] = name
            elif isinstance(module, _BatchNorm) and module.running_mean is not None:
                self.norms[id(module.running_mean)] = name
        self.given: dict[int, tuple[str, Tensor]] = {}  # the tensor too, so that no id is reused
        self.readers: dict[str, list[str | None]] = {}
        self.runs: Counter[str] = Counter()
        self.fits: set[str] = set()

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        result = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        names = [self.norms[id(t)] for t in tensors if id(t) in self.norms]
        norm = names[0] if func is F.batch_norm and names else None
        self.runs.update([norm] if norm else [])
        if given:  # else only a shape or the like was read
            for tensor in tensors:
                if id(tensor) in self.given:
                    self.readers[self.given[id(tensor)][0]].append(norm)
        if func in FUNCTIONS:
            for name in [self.layers[id(t)] for t in tensors if id(t) in self.layers]:
                self.runs[name] += 1
                self.readers.setdefault(name, [])
                self.given[id(given[0])] = (name, given[0])
                if func is not F.linear or given[0].ndim == 2:  # else channels are elsewhere
                    self.fits.add(name)
        return result

    def pairs(self) -> list[tuple[str, str]]:
        """Each layer whose output goes into one batch norm and nowhere else, and that norm."""
        return [
            (name, readers[0])
            for name, readers in self.readers.items()
            if len(readers) == 1
            and readers[0]
            and self.runs[name] == self.runs[readers[0]] == 1
            and name in self.fits
        ]


@torch.no_grad()
def fold_batch_norms(net: nn.Module, x: Tensor) -> int:
    """Folds every batch norm of ``net``, which is in eval mode, that can be; how many these were.

    Args:
        net: is changed; its answers change by rounding alone.
        x: samples to look at a forward pass with.
    """
    assert not net.training
    with Watch(net) as watch:
        net(x)
    folded = 0
    for layer_name, norm_name in watch.pairs():
        norm = net.get_submodule(norm_name)
        if (rest := what_is_left(norm)) is not None:
            _fold(net.get_submodule(layer_name), norm)
            net.set_submodule(norm_name, rest)
            folded += 1
    return folded


def what_is_left(norm: nn.Module) -> nn.Module | None:
    """What a module still does without its batch norm; None if that is not known."""
    if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return nn.Identity()
    parts = [getattr(norm, name, None) for name in ("drop", "act")]  # timm's BatchNormAct2d
    if type(norm).__name__ == "BatchNormAct2d" and all(isinstance(p, nn.Module) for p in parts):
        return nn.Sequential(*parts)
    return None


def _fold(layer: nn.Module, norm: _BatchNorm) -> None:
    mean, scale = norm.running_mean.double(), (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale if norm.bias is None else norm.bias.double() - mean * scale
    if layer.bias is not None:
        shift = shift + layer.bias.double() * scale
    weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    layer.weight = nn.Parameter(weight.to(layer.weight), requires_grad=False)
    layer.bias = nn.Parameter(shift.to(layer.weight), requires_grad=False)
