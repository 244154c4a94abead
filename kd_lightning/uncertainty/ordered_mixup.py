"""Mixup of a batch in the order of its uncertainty, as in UNIX (arXiv 2012.09413).

Dimensions: B batch, C classes, K samples that are kept.

A score says how uncertain a net is of each sample; only the order of the scores counts. All are
computed in float32, are finite at logits of 1e4, and have no gradient.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from kd_lightning.uncertainty.confidence import (
    margin_confidence,
    max_probability_confidence,
    predictive_entropy,
)


class Mixed(NamedTuple):
    """Mixed samples, the most uncertain first.

    Attributes:
        x: ``(1 - share) * x[first] + share * x[second]``.
        first: index of each sample in its batch.
        second: index of its partner, which may be itself.
        share: of the partner, in [0, 1].
    """

    x: Float[Tensor, "K *sample"]
    first: Int[Tensor, "K"]
    second: Int[Tensor, "K"]
    share: Float[Tensor, "K"]


def entropy_score(logits: Float[Tensor, "B C"]) -> Float[Tensor, "B"]:
    """``H(softmax(z))``, in nats."""
    return predictive_entropy(logits.detach())


def max_probability_score(logits: Float[Tensor, "B C"]) -> Float[Tensor, "B"]:
    """``1 - max_c p_c``, the least confidence."""
    return 1 - max_probability_confidence(logits)


def margin_score(logits: Float[Tensor, "B C"]) -> Float[Tensor, "B"]:
    """``-(p_(1) - p_(2))``: the smaller the margin, the more uncertain."""
    return -margin_confidence(logits)


def position_weights(
    positions: Float[Tensor, "B"], boundary: float, steepness: float
) -> Float[Tensor, "B"]:
    """How strongly the sample at each position r = 0, ..., B - 1 is mixed, in [0, 1].

    ``c_r = sigmoid(w (r / B - m))``, ``m = (2 b - 1) / (2 B)``. It rises with r, and crosses 1/2
    between the positions b - 1 and b.

    Args:
        positions: all of a batch.
        boundary: b / B.
        steepness: w; 0: 1/2 at every position.
    """
    num = len(positions)
    return torch.sigmoid(steepness * ((positions + 0.5) / num - boundary))


def mix_in_order(
    x: Num[Tensor, "B *sample"],
    score: Float[Tensor, "B"],
    partners: Int[Tensor, "B"],
    strength: Float[Tensor, ""] | float,
    *,
    num_kept: int,
    boundary: float,
    steepness: float,
) -> Mixed:
    """The K most uncertain samples, each mixed with a partner: the surer, the more.

    The share of the partner is ``strength * c_r``. Samples of equal scores keep their order.

    Args:
        x: uint8 images become float images in [0, 1].
        score: high where the net is uncertain.
        partners: of the sample at each position.
        strength: lambda in [0, 1], one for the batch; 0: no sample is mixed.
        num_kept: K.
        boundary, steepness: of ``position_weights``.
    """
    positions = torch.arange(len(x), dtype=torch.float32, device=x.device)
    share = (strength * position_weights(positions, boundary, steepness))[:num_kept]
    first = score.argsort(descending=True, stable=True)[:num_kept]
    second = partners[:num_kept]
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    of_partner = share.view(-1, *[1] * (x.ndim - 1))
    return Mixed((1 - of_partner) * x[first] + of_partner * x[second], first, second, share)
