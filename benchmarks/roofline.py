"""The least time that a machine needs for a net (a roofline model), from the net's arithmetic and
its memory traffic.

Counted are convolutions and linear layers. All other operations are assumed to run while the inputs
and outputs of these layers are read and written.

- Forward, for a layer that reads x elements and writes y elements: traffic x + y elements,
  arithmetic two operations for each multiplication.
- Training: three times that, for the forward pass and the gradients of x and of the weights; twice
  for layers that read the images themselves, which have no gradient. If a batch norm follows, 7 y
  elements more: normalising reads y and writes the result (2 y); the
  gradient needs a sum over both before it can be written (reads 2 y), and then reads both and
  writes (3 y).
- Weights are not counted: they are read once for a whole batch.

The least time is that of the arithmetic or that of the traffic, whichever is longer, as if both
overlapped entirely. No implementation that runs one layer after the other can be faster.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Ceilings:
    """The highest rates that were measured on a machine.

    Attributes:
        flops: operations per second, in a product of large matrices.
        bandwidth: bytes per second, read and written, in a copy.
    """

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """The work for one sample.

    Attributes:
        flops: operations.
        elements: read or written.
    """

    flops: float
    elements: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.elements + other.elements)

    def seconds(self, at: Ceilings, bytes_each: int = 2) -> float:
        """The least time."""
        return max(self.flops / at.flops, self.elements * bytes_each / at.bandwidth)

    def is_memory_bound(self, at: Ceilings, bytes_each: int = 2) -> bool:
        """Whether the memory traffic takes longer than the arithmetic."""
        return self.elements * bytes_each / at.bandwidth > self.flops / at.flops


def work_of(net: nn.Module, x: Tensor, *, trains: bool) -> Work:
    """The work of a net for one sample.

    Args:
        x: (1, C, *size).
        trains: True: forward and backward pass; False: forward pass with batch norms folded away.
    """
    works: list[Work] = []
    last: list[int] = []  # elements written by the last layer, until a batch norm reads them

    def count_layer(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        each = layer.weight[0].numel()  # multiplications for one element of the output
        forward = Work(2.0 * each * output.numel(), inputs[0].numel() + output.numel())
        with_input = inputs[0].requires_grad
        works.extend([forward] * ((3 if with_input else 2) if trains else 1))
        last[:] = [output.numel()]

    def count_norm(norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if trains and last == [output.numel()]:
            works.append(Work(0.0, 7 * output.numel()))

    hooks = [m.register_forward_hook(count_layer) for m in net.modules() if isinstance(m, LAYERS)]
    hooks += [m.register_forward_hook(count_norm) for m in net.modules() if isinstance(m, NORMS)]
    training = net.training
    with torch.set_grad_enabled(trains):
        net.eval()(x)
    net.train(training)
    for hook in hooks:
        hook.remove()
    return total(works)


def total(works: Iterable[Work]) -> Work:
    return sum(works, Work(0.0, 0.0))


def lines(works: Mapping[str, Work], at: Ceilings) -> list[str]:
    """A table of the least times of the parts of a step, and their sum in the last row."""
    rows = ["| part | GFLOP | MB | least time, µs | bound by |", "|---|---:|---:|---:|---|"]
    seconds = {name: work.seconds(at) for name, work in works.items()}
    for name, work in works.items():
        bound = "memory" if work.is_memory_bound(at) else "arithmetic"
        rows.append(
            f"| {name} | {work.flops / 1e9:.1f} | {work.elements * 2 / 1e6:.1f} | "
            f"{seconds[name] * 1e6:.1f} | {bound} |"
        )
    return [*rows, f"| all, one after the other | | | {sum(seconds.values()) * 1e6:.1f} | |"]


def share(samples_per_second: float, works: Iterable[Work], at: Ceilings) -> float:
    """The measured rate as a share of the highest possible one, the parts one after the other."""
    return samples_per_second * sum(work.seconds(at) for work in works)
