"""A policy that augments feature maps, as in student-oriented refinement (arXiv 2409.18785).

A sub-policy is a pair of operations (``map_operations.py``). For each sample a pair s is drawn, and
whether each of its two operations is active (b). The magnitudes mu are in [0, 1].

    s ~ Categorical(softmax(a)),  b ~ Bernoulli(pi_s),  f' = operations(f; s, b, mu_s)

Dimensions: B batch, D channels, P pairs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.losses.score_function import score_function_mean
from kd_lightning.models.map_operations import RANGES, apply_operations


class Draw(NamedTuple):
    """What was drawn for each sample.

    Attributes:
        pair: its sub-policy.
        active: which of the two operations are applied.
        magnitudes: of the two operations, in [0, 1].
        log_probs: of ``pair`` and ``active`` together; with a gradient if the policy learns.
    """

    pair: Int[Tensor, "B"]
    active: Bool[Tensor, "B 2"]
    magnitudes: Float[Tensor, "B 2"]
    log_probs: Float[Tensor, "B"]


class FeaturePolicy(nn.Module):
    """All pairs are equally likely, an operation is active half of the time, its magnitude is
    uniform. It learns nothing.

    Args:
        operations: keys of ``map_operations.RANGES``, two or more.
    """

    def __init__(self, operations: Sequence[str]) -> None:
        super().__init__()
        self.operations = tuple(operations)
        pairs = torch.combinations(torch.arange(len(operations)))
        ranges = torch.tensor([RANGES[name] for name in operations])
        self.register_buffer("pairs", pairs, persistent=False)
        self.register_buffer("ranges", ranges, persistent=False)

    def draw(self, num: int) -> Draw:
        """For ``num`` samples, from the default generators."""
        place = self.pairs.device
        pair = torch.randint(len(self.pairs), (num,), device=place)
        uniform = torch.rand(2, num, 2, device=place)
        return Draw(pair, uniform[0] < 0.5, uniform[1], uniform.new_zeros(num))

    def forward(self, x: Float[Tensor, "B D *size"], draw: Draw) -> Float[Tensor, "B D *size"]:
        """The augmented maps. The magnitudes get a straight-through gradient: each active one as if
        it had been added to every element. No gradient goes to ``x``.
        """
        with torch.no_grad():
            augmented = apply_operations(x, self.strengths(draw))
        added = (draw.active * draw.magnitudes).sum(1)
        return augmented + (added - added.detach()).view(-1, *[1] * (x.ndim - 1))

    def strengths(self, draw: Draw) -> dict[str, Float[Tensor, "B"]]:
        """Operation -> its strength for each sample; 0 where it is not active."""
        chosen = self.pairs[draw.pair]
        low, high = self.ranges[chosen].unbind(-1)
        values = (low + draw.magnitudes * (high - low)) * draw.active
        dense = values.new_zeros(len(values), len(self.operations)).scatter(1, chosen, values)
        return dict(zip(self.operations, dense.unbind(1), strict=True))


class LearnedPolicy(FeaturePolicy):
    """Its weights a, its chances pi and its magnitudes mu are learned; pi and mu start at 0.5."""

    def __init__(self, operations: Sequence[str]) -> None:
        super().__init__(operations)
        self.pair_logits = nn.Parameter(torch.zeros(len(self.pairs)))
        self.chance_logits = nn.Parameter(torch.zeros(len(self.pairs), 2))
        self.magnitude_logits = nn.Parameter(torch.zeros(len(self.pairs), 2))

    def draw(self, num: int) -> Draw:
        pair_log_probs = self.pair_logits.log_softmax(0)
        with torch.no_grad():  # the largest sum with Gumbel noise is a draw of the softmax
            noise = -(-torch.rand(num, len(self.pairs), device=self.pairs.device).log()).log()
            pair = (pair_log_probs + noise).argmax(1)
        chances = self.chance_logits[pair]
        active = torch.rand_like(chances) < chances.detach().sigmoid()
        of_active = log_probs_of_switches(chances, active).sum(1)
        magnitudes = self.magnitude_logits[pair].sigmoid()
        return Draw(pair, active, magnitudes, pair_log_probs[pair] + of_active)

    def terms(self, losses: Float[Tensor, "B"], draw: Draw) -> Mapping[str, Tensor]:
        """``policy``: the mean of the losses, with the score-function gradient to the choices, and
        its own to the magnitudes.

        Args:
            losses: of the maps that this draw has augmented.
        """
        return {"policy": score_function_mean(losses, draw.log_probs)}

    @torch.no_grad()
    def statistics(self) -> dict[str, Float[Tensor, ""]]:
        """``entropy``: of the pairs; 1: equally likely, 0: one is certain.
        ``activity``: mean chance of an operation to be applied.
        """
        shares = self.pair_logits.softmax(0)
        return {
            "entropy": torch.special.entr(shares).sum() / math.log(len(self.pairs)),
            "activity": (shares * self.chance_logits.sigmoid().mean(1)).sum(),
        }


def log_probs_of_switches(
    logits: Float[Tensor, "*N"], is_on: Bool[Tensor, "*N"]
) -> Float[Tensor, "*N"]:
    """The logarithm of the probability of each state, where ``logits`` are those of "on"."""
    return F.logsigmoid(torch.where(is_on, logits, -logits))
