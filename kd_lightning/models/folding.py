"""Folds batch norms of a net that is no longer trained into the layers before them.

In eval mode a batch norm multiplies each channel by a constant and adds another. The convolution or
linear layer before it can do the same. One forward pass shows which layer this is, so the code of
the net is not needed.
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


class _RecordReaders(TorchFunctionMode):
    """Records which functions read the output of each layer.

    Attributes:
        readers: layer -> the readers of its output, in order: a batch norm by its name, anything
            else as None.
        num_runs: layer or batch norm -> how often it ran.
        foldable: layers with the channels of their output in the dimension that a batch norm
            normalizes.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.layers, self.norms = {}, {}
        for name, module in net.named_modules():
            if isinstance(module, LAYERS):
                self.layers[id(module.weight)] = name
            elif isinstance(module, _BatchNorm) and module.running_mean is not None:
                self.norms[id(module.running_mean)] = name
        # id of an output -> its layer, and the tensor itself, so that no other gets the same id
        self.outputs: dict[int, tuple[str, Tensor]] = {}
        self.readers: dict[str, list[str | None]] = {}
        self.num_runs: Counter[str] = Counter()
        self.foldable: set[str] = set()

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        names = [self.norms[id(t)] for t in inputs if id(t) in self.norms]
        norm = names[0] if func is F.batch_norm and names else None
        self.num_runs.update([norm] if norm else [])
        if outputs:  # a function that returns no tensor reads only a shape or the like
            for tensor in inputs:
                if id(tensor) in self.outputs:
                    self.readers[self.outputs[id(tensor)][0]].append(norm)
        if func in FUNCTIONS:
            for name in [self.layers[id(t)] for t in inputs if id(t) in self.layers]:
                self.num_runs[name] += 1
                self.readers.setdefault(name, [])
                self.outputs[id(outputs[0])] = (name, outputs[0])
                # a linear layer on more dimensions has its channels last, a batch norm second
                if func is not F.linear or outputs[0].ndim == 2:
                    self.foldable.add(name)
        return result

    def pairs(self) -> list[tuple[str, str]]:
        """Each layer whose output is read by one batch norm and nothing else, and that norm."""
        return [
            (name, readers[0])
            for name, readers in self.readers.items()
            if len(readers) == 1
            and readers[0]
            and self.num_runs[name] == self.num_runs[readers[0]] == 1
            and name in self.foldable
        ]


@torch.no_grad()
def fold_batch_norms(net: nn.Module, x: Tensor) -> int:
    """Folds all batch norms of ``net`` that can be folded. Returns their number.

    Args:
        net: in eval mode. It is changed; its outputs change only by rounding.
        x: samples for one forward pass.
    """
    assert not net.training
    with _RecordReaders(net) as record:
        net(x)
    num_folded = 0
    for layer_name, norm_name in record.pairs():
        norm = net.get_submodule(norm_name)
        if (replacement := _without_norm(norm)) is not None:
            _fold(net.get_submodule(layer_name), norm)
            net.set_submodule(norm_name, replacement)
            num_folded += 1
    return num_folded


def _without_norm(norm: nn.Module) -> nn.Module | None:
    """What a batch norm module does besides normalizing; None if this is not known."""
    if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return nn.Identity()
    parts = [getattr(norm, name, None) for name in ("drop", "act")]  # timm's BatchNormAct2d
    if type(norm).__name__ == "BatchNormAct2d" and all(isinstance(p, nn.Module) for p in parts):
        return nn.Sequential(*parts)
    return None


def _fold(layer: nn.Module, norm: _BatchNorm) -> None:
    """Changes weight and bias of ``layer`` so that it also does what ``norm`` does."""
    mean, scale = norm.running_mean.double(), (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale if norm.bias is None else norm.bias.double() - mean * scale
    if layer.bias is not None:
        shift = shift + layer.bias.double() * scale
    weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    layer.weight = nn.Parameter(weight.to(layer.weight), requires_grad=False)
    layer.bias = nn.Parameter(shift.to(layer.weight), requires_grad=False)
