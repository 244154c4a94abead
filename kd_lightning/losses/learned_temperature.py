"""A temperature that learns against its student: CTKD, Li et al., AAAI 2023 (arXiv 2211.16231).

    T = start + span * sigmoid(tau)

The student makes the soft loss smaller, and tau makes it larger: the gradient of tau is reversed.
It is multiplied by a strength, which rises from 0 to 1, so that the student's task becomes harder.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LearnedTemperature(nn.Module):
    """One temperature for all samples, in ``(start, start + span)``.

    As released (https://github.com/zhengli97/CTKD, its "global" temperature): start 1, span 20, and
    tau, which begins at 1, so that T begins at 15.6. The same optimizer steps the student and tau,
    with the same learning rate and weight decay. Left out is the temperature of each sample.

    Args:
        start: > 0.
        span: > 0.
    """

    def __init__(self, start: float, span: float) -> None:
        super().__init__()
        if not (0 < start < math.inf and 0 < span < math.inf):
            raise ValueError(f"start and span must be > 0, got {start} and {span}")
        self.start = start
        self.span = span
        self.tau = nn.Parameter(torch.ones(()))

    def forward(self, strength: float | Float[Tensor, ""]) -> Float[Tensor, ""]:
        """T. The gradient of tau is multiplied by ``-strength``."""
        return self.start + self.span * reversed_gradient(self.tau, strength).sigmoid()


def reversed_gradient(x: Tensor, strength: float | Float[Tensor, ""]) -> Tensor:
    """``x``, bit for bit; its gradient is multiplied by ``-strength``."""
    held = x.detach()
    return held + strength * (held - x)
