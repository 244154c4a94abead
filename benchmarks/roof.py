"""The least time that a machine needs for a net, from its arithmetic and its memory traffic.

Counted are convolutions and linear layers, the rest is taken to be done while their inputs and
outputs pass by. Forward, x being what a layer reads and y what it writes: x + y elements, and two
operations for each multiplication. In training, three times that, for the gradients of x and of the
weights; and where a batch norm follows, seven times y more: normalising reads y and writes the
normalised, its gradient needs a sum over all (reads both) before it can be written (reads both,
writes). Weights are left out: they are read once for a whole batch. The floor is what takes longer,
arithmetic or traffic, as if they overlapped entirely: nothing is faster.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Ceilings:
    """What a machine was measured to do at most.

    Attributes:
        flops: operations a second, in a product of large matrices.
        bandwidth: bytes a second, read and written, in a copy.
    """

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """Of one sample.

    Attributes:
        flops: operations.
        elements: that are read or written.
    """

    flops: float
    elements: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.elements + other.elements)

    def seconds(self, at: Ceilings, bytes_each: int = 2) -> float:
        """The floor."""
        return max(self.flops / at.flops, self.elements * bytes_each / at.bandwidth)

    def is_of_memory(self, at: Ceilings, bytes_each: int = 2) -> bool:
        """Whether it is traffic that takes longer."""
        return self.elements * bytes_each / at.bandwidth > self.flops / at.flops


@torch.no_grad()
def work_of(net: nn.Module, x: Tensor, *, trains: bool) -> Work:
    """Of one sample in a net.

    Args:
        x: (1, C, *size).
        trains: forward and backward; else forward, batch norms folded away.
    """
    found: list[Work] = []
    last: list[int] = []  # elements that the layer before wrote, until a norm reads them

    def see_layer(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        each = layer.weight[0].numel()  # multiplications for one element of the output
        forward = Work(2.0 * each * output.numel(), inputs[0].numel() + output.numel())
        found.extend([forward] * (3 if trains else 1))
        last[:] = [output.numel()]

    def see_norm(norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if trains and last == [output.numel()]:
            found.append(Work(0.0, 7 * output.numel()))

    hooks = [m.register_forward_hook(see_layer) for m in net.modules() if isinstance(m, LAYERS)]
    hooks += [m.register_forward_hook(see_norm) for m in net.modules() if isinstance(m, NORMS)]
    training = net.training
    net.eval()(x)
    net.train(training)
    for hook in hooks:
        hook.remove()
    return total(found)


def total(works: Iterable[Work]) -> Work:
    return sum(works, Work(0.0, 0.0))


def lines(works: Mapping[str, Work], at: Ceilings) -> list[str]:
    """The floors of the parts of a step as a table, their sum last."""
    rows = ["| part | GFLOP | MB | floor, µs | bound by |", "|---|---:|---:|---:|---|"]
    seconds = {name: work.seconds(at) for name, work in works.items()}
    for name, work in works.items():
        bound = "memory" if work.is_of_memory(at) else "arithmetic"
        rows.append(
            f"| {name} | {work.flops / 1e9:.1f} | {work.elements * 2 / 1e6:.1f} | "
            f"{seconds[name] * 1e6:.1f} | {bound} |"
        )
    return [*rows, f"| all, one after the other | | | {sum(seconds.values()) * 1e6:.1f} | |"]


def share(samples_per_second: float, works: Iterable[Work], at: Ceilings) -> float:
    """Of what the roof lets through, the parts one after the other."""
    return samples_per_second * sum(work.seconds(at) for work in works)
