"""RELAX, Grathwohl et al. 2018 (arXiv 1711.00123): the gradient of a mean loss with respect to the
probabilities with which something discrete was drawn, with a control variate that is learned.

    g = mean_i[ L_i grad log p(d_i) - c(z~_i) grad log p(e_i) + grad c(z_i) - grad c(z~_i) ]

z is a continuous variable whose largest part, or sign, is what was drawn: e. d is the part of e
that the loss depends on. z~ is drawn anew among the z that give e. Any c leaves the mean of g as it
is, the gradient of the expected loss; a good one makes its variance small.

Logits and uniform numbers have any shape; the last dimension of a categorical one is its choices.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def relax_gradient(
    losses: Float[Tensor, "B"],
    log_probs: tuple[Float[Tensor, "B"], Float[Tensor, "B"]],
    controls: tuple[Float[Tensor, "B"], Float[Tensor, "B"]],
    parameters: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """g for each of the parameters, with a graph to those of the control variate. It estimates
    without bias if the samples' draws are independent.

    Args:
        losses: L; without a graph.
        log_probs: log p(d) and log p(e).
        controls: c(z) and c(z~).
        parameters: of the probabilities, of which ``log_probs`` and ``controls`` are functions.
    """
    num = max(len(losses), 1)
    relaxed, resampled = controls
    return torch.autograd.grad(
        [*log_probs, relaxed - resampled],
        parameters,
        [losses / num, -resampled / num, torch.full_like(losses, 1 / num)],
        create_graph=True,
    )


def inside(uniform: Tensor) -> Tensor:
    """Uniform numbers that are neither 0 nor 1, whose logarithms are finite."""
    tiny = torch.finfo(uniform.dtype).eps
    return uniform.clamp(tiny, 1 - tiny)


def relaxed_choice(log_probs: Float[Tensor, "*N C"], uniform: Float[Tensor, "*N C"]) -> Tensor:
    """z of a categorical variable, whose largest part is the choice (Gumbel-max)."""
    return log_probs - (-inside(uniform).log()).log()


def resampled_choice(
    log_probs: Float[Tensor, "*N C"], choice: Int[Tensor, "*N"], uniform: Float[Tensor, "*N C"]
) -> Float[Tensor, "*N C"]:
    """z~: a z whose largest part is this choice."""
    exponential = -inside(uniform).log()
    largest = exponential.gather(-1, choice.unsqueeze(-1))
    # the logarithm of exponential / p + largest, also where p is too small for its type
    others = -torch.logaddexp(exponential.log() - log_probs, largest.log())
    return others.scatter(-1, choice.unsqueeze(-1), -largest.log())


def relaxed_switch(logits: Float[Tensor, "*N"], uniform: Float[Tensor, "*N"]) -> Tensor:
    """z of a switch that is on with the chance sigmoid(logits): on where z is positive."""
    return logits + inside(uniform).logit()


def resampled_switch(
    logits: Float[Tensor, "*N"], is_on: Bool[Tensor, "*N"], uniform: Float[Tensor, "*N"]
) -> Float[Tensor, "*N"]:
    """z~: a z of this sign."""
    off = (-logits).sigmoid()
    return logits + inside(torch.where(is_on, off + uniform * (1 - off), uniform * off)).logit()
