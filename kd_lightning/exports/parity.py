"""Whether an exported file computes what the PyTorch student computes, on the same samples.

Dimensions: N samples, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.exports.graph import Graph

# Largest difference that float32 rounding explains, for outputs up to 1 (all probabilities); for
# larger outputs (logits) it is multiplied by the largest.
TOLERANCE = 1e-4
SINGLES = 4  # samples that are checked one by one
BATCH = 32  # the others, in batches of this size; the last one may be smaller
# Probabilities near 0 and 1 hide what their logits are, so their logarithms are compared too, of
# classes that are not nearly impossible.
LOG_TOLERANCE = 0.02
NEARLY_IMPOSSIBLE = 1e-6


@dataclass(frozen=True)
class CheckedSamples:
    """The samples that an export is checked with.

    Attributes:
        x: (N, *shape), as the student takes them.
        y: (N,) labels; None: they are not known.
        about: what they are, in words.
        is_noise: whether they are only random numbers.
    """

    x: Num[Tensor, "N *shape"]
    y: Int[Tensor, "N"] | None
    about: str
    is_noise: bool = False


@dataclass(frozen=True)
class Parity:
    """The difference of an exported file from PyTorch.

    Attributes:
        difference: largest absolute difference of an output.
        allowed: the tolerance.
        agreement: share of samples with the same predicted class.
        accuracy: of the exported file; None without labels.
    """

    difference: float
    allowed: float
    agreement: float
    accuracy: float | None


@torch.no_grad()
def run_all(function: Callable[[Tensor], Tensor], x: Num[Tensor, "N *shape"]) -> Tensor:
    """The outputs for all samples: the first ones in batches of 1, the rest in larger batches."""
    batches = [*x[:SINGLES].split(1), *x[SINGLES:].split(BATCH)]
    return torch.cat([function(batch) for batch in batches if len(batch)])


def compare(
    outputs: Float[Tensor, "N C"], expected: Float[Tensor, "N C"], labels: Tensor | None
) -> Parity:
    """Compares the outputs of a file with those of PyTorch."""
    return Parity(
        difference=(outputs - expected).abs().max().item(),
        allowed=TOLERANCE * max(1.0, expected.abs().max().item()),
        agreement=(outputs.argmax(-1) == expected.argmax(-1)).float().mean().item(),
        accuracy=accuracy(outputs, labels),
    )


def accuracy(outputs: Float[Tensor, "N C"], labels: Tensor | None) -> float | None:
    if labels is None:
        return None
    return (outputs.argmax(-1) == labels).float().mean().item()


def check_parity(
    name: str,
    run: Callable[[Tensor], Tensor],
    graph: Graph,
    samples: CheckedSamples,
    *,
    exact: bool,
) -> Parity:
    """Runs a file on the samples and compares it with PyTorch.

    Args:
        name: of the format.
        run: the file, as a function of the graph's input.
        exact: whether only rounding may differ; False for quantized files, whose difference is
            only reported.

    Raises:
        UserError: the difference is larger than the tolerance.
    """
    count = max(len(samples.x), SINGLES + 2)  # few samples are repeated, for a batch of two
    x = samples.x[torch.arange(count) % len(samples.x)]
    try:
        outputs = run_all(lambda x: run(graph.to_input(x)), x)
    except Exception as error:  # a runtime can raise anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the file of --format {name} cannot be run ({type(error).__name__}: {reason}): "
            "nothing is written"
        ) from error
    expected = run_all(graph.expected, x)
    parity = compare(outputs, expected, None)
    parity = replace(parity, accuracy=accuracy(outputs[: len(samples.x)], samples.y))
    found = {"": (parity.difference, parity.allowed)}
    if exact and graph.output_name == "probabilities":
        found[" in the logarithm"] = (log_difference(outputs, expected), LOG_TOLERANCE)
    for where, (difference, allowed) in found.items() if exact else ():
        if not difference <= allowed:  # also for NaN
            raise UserError(
                f"the file of --format {name} differs from PyTorch by {difference:.2g}{where}, "
                f"more than the {allowed:.2g} that rounding explains: nothing is written, choose "
                "another --format, or --preprocessing outside if the net resizes its input"
            )
    return parity


def log_difference(outputs: Float[Tensor, "N C"], expected: Float[Tensor, "N C"]) -> float:
    """Largest difference of the logarithms of probabilities that are not nearly 0."""
    counts = ~(expected <= NEARLY_IMPOSSIBLE)  # also NaN
    smallest = torch.finfo(outputs.dtype).tiny
    return (outputs.clamp_min(smallest).log() - expected.log())[counts].abs().max().item()
