"""Hashing loss: the bits of a locality-sensitive hash of two features agree.

Wang et al., "In defense of feature mimicking", arXiv 2011.01424. Dimensions: B batch, D features,
N bits. A bit is the side of a random plane on which a feature lies: ``1[A f + c > 0]``.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def hashing_loss(
    student_features: Float[Tensor, "B D"],
    target_features: Float[Tensor, "B D"],
    planes: Float[Tensor, "N D"],
    offsets: Float[Tensor, "N"] | float = 0.0,
) -> Float[Tensor, "B"]:
    """Cross-entropy of the student's soft bits with the target's bits, in nats, mean over the bits.

    ``- mean_N [ q log sigma(A f + c) + (1 - q) log(1 - sigma(A f + c)) ]``, q the target's bits. It
    compares directions: with c = 0 the length of the target has no effect. It is not zero for equal
    features; it tends to zero for a multiple of the target as the multiple grows.

    The gradient goes to the student alone. Computed in float32.

    Args:
        planes: A, fixed, usually drawn from N(0, 1).
        offsets: c.
    """
    planes = planes.float()
    # with autocast the products would be in half precision
    with torch.autocast(planes.device.type, enabled=False):
        bits = (F.linear(target_features.float(), planes) + offsets > 0).float()
        soft_bits = F.linear(student_features.float(), planes) + offsets
    return F.binary_cross_entropy_with_logits(soft_bits, bits, reduction="none").mean(1)
