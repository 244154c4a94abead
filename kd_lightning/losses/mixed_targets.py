"""A teacher's target for a mixed sample, made of its answers to the two clean ones.

Dimensions: B batch, C classes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.losses.soft_targets import soft_log_probs


def mixed_logits(
    logits: Float[Tensor, "B C"],
    partner: Int[Tensor, "B"],
    share: Float[Tensor, "B"],
    temperature: float,
) -> Float[Tensor, "B C"]:
    """Logits z with ``softmax(z / T) = (1 - share) p^T + share p^T[partner]``.

    Computed in float32 and in log space, so that logits of 1e4 give finite values. Where the share
    is 0 they are the sample's own logits, up to a constant for each sample.

    Args:
        logits: of the teacher for the clean samples.
        partner: index of the sample that is mixed into each.
        share: of the partner, in [0, 1].
        temperature: T, at which the soft loss takes the softmax.

    Raises:
        ValueError: the temperature is not > 0.
    """
    own = soft_log_probs(logits, temperature)
    share = share.float().unsqueeze(1)
    return temperature * torch.logaddexp((1 - share).log() + own, share.log() + own[partner])
