"""What a training step computes, as a function of its batch that keeps nothing and reads nothing.

So it can be compiled whole: teacher, students, confidence and losses in one graph.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kd_lightning.base.errors import UserError

Known = Mapping[str, Tensor] | None  # of a batch, from a cache: name -> (B, ...)


class Losses(NamedTuple):
    """What a method makes of a batch.

    Attributes:
        terms: "<student>/<term>" -> a scalar, its weight included; their sum is minimised.
        also: name -> scalars that are recorded and not summed.
        seen: what the method counts over an epoch.
    """

    terms: dict[str, Tensor]
    also: Mapping[str, Tensor] = {}
    seen: Any = None


class Step(NamedTuple):
    """What is left of a step.

    Attributes:
        loss: sum of the terms.
        names: of all scalars, summed and not.
        values: the scalars, in float32, without a graph.
        seen: as ``Losses`` has it.
    """

    loss: Tensor
    names: tuple[str, ...]
    values: Float[Tensor, "V"]
    seen: Any


def step_of(found: Losses) -> Step:
    recorded = {**found.terms, **found.also}
    values = torch.stack([value.detach().float() for value in recorded.values()])
    loss = torch.stack(list(found.terms.values())).sum()
    return Step(loss, tuple(recorded), values, found.seen)


class CompiledStep:
    """A step as one compiled graph, for whole batches; smaller ones, such as one from which a bad
    image was left out, are computed as they are.

    Args:
        step: (x, ...) -> what is computed of a batch.
        cuda_graphs: record the GPU's work once and replay it. What a step returns lasts until the
            next one.
    """

    def __init__(self, step: Callable[..., Step], *, cuda_graphs: bool = False) -> None:
        mode = "reduce-overhead" if cuda_graphs else "default"
        # graphs are kept by code, and every run of a process has the same: they would add up until
        # torch refuses to compile another
        torch.compiler.reset()
        self.plain = step
        self.fast = torch.compile(step, fullgraph=True, dynamic=False, mode=mode)
        self.cuda_graphs = cuda_graphs
        self.size = 0  # of the batches that it is compiled for: the largest so far

    def __call__(self, x: Tensor, *rest: Any) -> Step:
        if len(x) > self.size:
            from torch._dynamo.exc import TorchDynamoException  # half a second, and seldom needed

            self.size = len(x)
            try:
                return self._run(x, *rest)
            except TorchDynamoException as error:
                said = " ".join(str(error).split("\n\n")[0].split())[:200]
                raise UserError(
                    f"this step cannot be compiled as one function: {said} (set "
                    "hardware.compile=false)"
                ) from error
        return self._run(x, *rest) if len(x) == self.size else self.plain(x, *rest)

    def _run(self, *batch: Any) -> Step:
        if self.cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        return self.fast(*batch)
