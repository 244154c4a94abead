"""The result of one training step, as a function of its batch alone.

``losses`` of a method keeps no state and reads none that a step changes, so the teacher, the
students and all loss terms can be compiled as one graph.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kd_lightning.base.errors import UserError

Cached = Mapping[str, Tensor] | None  # cached teacher outputs of a batch: name -> (B, ...)


class Losses(NamedTuple):
    """What a method computes for a batch.

    Attributes:
        terms: "<student>/<term>" -> a scalar with its weight already multiplied in. The sum of all
            terms is minimised.
        metrics: name -> a scalar that is logged and not minimised.
        statistics: passed to ``update_statistics`` after the step; None: nothing.
    """

    terms: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor] = {}
    statistics: Any = None


class Step(NamedTuple):
    """The result of a training step.

    Attributes:
        loss: the sum of the terms.
        names: of all logged scalars, terms first.
        values: these scalars, in float32, detached.
        statistics: as in ``Losses``.
    """

    loss: Tensor
    names: tuple[str, ...]
    values: Float[Tensor, "V"]
    statistics: Any


def step_of(losses: Losses) -> Step:
    scalars = {**losses.terms, **losses.metrics}
    values = torch.stack([value.detach().float() for value in scalars.values()])
    loss = torch.stack(list(losses.terms.values())).sum()
    return Step(loss, tuple(scalars), values, losses.statistics)


class CompiledStep:
    """A step compiled as one graph, for batches of full size. Smaller batches, for instance after
    an unreadable image was left out, are computed without the compiler.

    Args:
        step: (x, ...) -> ``Step``.
    """

    def __init__(self, step: Callable[..., Step]) -> None:
        # torch caches graphs by code, and all runs of a process share the code: without a reset it
        # reaches its limit and refuses to compile the next one
        torch.compiler.reset()
        self.plain = step
        self.fast = torch.compile(step, fullgraph=True, dynamic=False)
        self.size = 0  # full batch size: the largest seen so far

    def __call__(self, x: Tensor, *rest: Any) -> Step:
        self.size = max(self.size, len(x))
        if len(x) < self.size:
            return self.plain(x, *rest)
        with faults_of_compiler():
            return self.fast(x, *rest)


@contextmanager
def faults_of_compiler() -> Iterator[None]:
    """Inside, a failure of the compiler is a ``UserError``. The forward pass is compiled when it is
    first called, the backward pass with the first gradients.
    """
    try:
        yield
    except Exception as error:
        from torch._dynamo.exc import TorchDynamoException  # costs 0.5 s, rarely needed

        if not isinstance(error, TorchDynamoException):
            raise
        reason = " ".join(str(error).split("\n\n")[0].split())[:200]
        raise UserError(
            f"this step cannot be compiled as one function: {reason} (set hardware.compile=false)"
        ) from error
