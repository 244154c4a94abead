"""A policy of feature maps whose choices are learned by RELAX (``losses/relax.py``), as released
with student-oriented refinement (arXiv 2409.18785).

Dimensions: B batch, P pairs of operations.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kd_lightning.losses.relax import (
    relax_gradient,
    relaxed_choice,
    relaxed_switch,
    resampled_choice,
    resampled_switch,
)
from kd_lightning.models.feature_policy import LearnedPolicy, log_probs_of_switches

TEMPERATURE = 0.5  # of the relaxed choices that the control variate sees
WIDTH = 100  # of the control variate


class RelaxedDraw(NamedTuple):
    """A ``Draw``, and what it was made of.

    Attributes:
        all_active: whether the operations of each pair would be applied.
        pair_noise, active_noise: uniform numbers; the first of two gave what was drawn, the second
            is for drawing anew.
    """

    pair: Int[Tensor, "B"]
    active: Bool[Tensor, "B 2"]
    magnitudes: Float[Tensor, "B 2"]
    log_probs: Float[Tensor, "B"]
    all_active: Bool[Tensor, "B P 2"]
    pair_noise: Float[Tensor, "B 2 P"]
    active_noise: Float[Tensor, "B 2 P 2"]


class RelaxedPolicy(LearnedPolicy):
    """A learned policy with a control variate of all relaxed choices: of the pair, and of both
    operations of every pair. The control variate and the temperature are as released.
    """

    def __init__(self, operations: Sequence[str]) -> None:
        super().__init__(operations)
        num = len(self.pairs)
        self.control = nn.Sequential(nn.Linear(3 * num, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))

    def draw(self, num: int) -> RelaxedDraw:
        like, pairs = self.pair_logits, len(self.pairs)
        pair_noise, active_noise = like.new_empty(num, 2, pairs), like.new_empty(num, 2, pairs, 2)
        pair_noise.uniform_(), active_noise.uniform_()
        pair_log_probs = self.pair_logits.log_softmax(0)
        with torch.no_grad():
            pair = relaxed_choice(pair_log_probs, pair_noise[:, 0]).argmax(1)
            all_active = relaxed_switch(self.chance_logits, active_noise[:, 0]) > 0
        active = all_active[torch.arange(num, device=pair.device), pair]
        magnitudes = self.magnitude_logits[pair].sigmoid()
        of_active = log_probs_of_switches(self.chance_logits[pair], active).sum(1)
        log_probs = pair_log_probs[pair] + of_active
        return RelaxedDraw(
            pair, active, magnitudes, log_probs, all_active, pair_noise, active_noise
        )

    def terms(self, losses: Float[Tensor, "B"], draw: RelaxedDraw) -> Mapping[str, Tensor]:
        """``policy``: the mean of the losses, with the RELAX gradient to the choices. ``control``:
        the squared estimate, with a gradient to the control variate alone. As the estimate's mean
        does not depend on the control variate, this makes its variance small.
        """
        with torch.autocast(losses.device.type, enabled=False):
            estimate = self.estimate(losses.detach(), draw)
        mean = losses.sum() / max(len(losses), 1)
        for parameter, gradient in zip(self.choices, estimate, strict=True):
            mean = mean + (gradient.detach() * (parameter - parameter.detach())).sum()
        return {"policy": mean, "control": sum(g.square().sum() for g in estimate)}

    @property
    def choices(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.pair_logits, self.chance_logits

    def estimate(self, losses: Float[Tensor, "B"], draw: RelaxedDraw) -> tuple[Tensor, ...]:
        """The gradient of the expected loss with respect to ``choices``, with a graph to the
        control variate and not to them.
        """
        copies = [parameter.detach().requires_grad_() for parameter in self.choices]
        pair_log_probs, chances = copies[0].log_softmax(0).expand(len(losses), -1), copies[1]
        of_active = log_probs_of_switches(chances, draw.all_active).sum(2)
        of_pair = pair_log_probs.gather(1, draw.pair.unsqueeze(1)).squeeze(1)
        of_drawn = of_active.gather(1, draw.pair.unsqueeze(1)).squeeze(1)
        relaxed = self.control_of(
            relaxed_choice(pair_log_probs, draw.pair_noise[:, 0]),
            relaxed_switch(chances, draw.active_noise[:, 0]),
        )
        resampled = self.control_of(
            resampled_choice(pair_log_probs, draw.pair, draw.pair_noise[:, 1]),
            resampled_switch(chances, draw.all_active, draw.active_noise[:, 1]),
        )
        log_probs = of_pair + of_drawn, of_pair + of_active.sum(1)
        return relax_gradient(losses, log_probs, (relaxed, resampled), copies)

    def control_of(
        self, pair: Float[Tensor, "B P"], active: Float[Tensor, "B P 2"]
    ) -> Float[Tensor, "B"]:
        """The control variate of relaxed choices."""
        shares, chances = (pair / TEMPERATURE).softmax(1), (active / TEMPERATURE).sigmoid()
        return self.control(torch.cat([shares, chances.flatten(1)], dim=1)).squeeze(1)
