"""Batches whose samples are mixed in pairs, by torchvision's MixUp or CutMix.

Dimensions: B batch, C classes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.base.errors import UserError

Sources = dict[str, Tensor]


def mix(mixing: Callable, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Applies torchvision's ``mixing`` to a batch of images (B, C, H, W) or series (B, C, L).

    Raises:
        UserError: CutMix is used for series.
    """
    if x.ndim == 4:
        return mixing(x, y)
    if "CutMix" in type(mixing).__name__:
        raise UserError(
            "CutMix cuts rectangles out of images: use MixUp for series (data.mixing=…)"
        )
    x, y = mixing(x.unsqueeze(2), y)  # torchvision needs images: make height 1
    return x.squeeze(2), y


def mix_with_sources(
    mixing: Callable, num_classes: int, x: Tensor, y: Int[Tensor, "B"]
) -> tuple[Tensor, Float[Tensor, "B C"], Sources]:
    """``mix``, and which two samples each mixed sample is made of.

    The batch itself is mixed as without this, bit for bit.

    Args:
        mixing: without ``num_classes``, so that it takes any label shares.

    Returns:
        The mixed samples; their class shares; and ``partner`` (B,), the index of the other sample,
        with its ``share`` (B,) in [0, 1]. The first is the sample at the same index.
    """
    # a class of its own for each sample shows how the samples are mixed
    labels = torch.cat([F.one_hot(y, num_classes), torch.eye(len(y), device=y.device)], dim=1)
    x, mixed = mix(mixing, x, labels)
    of_classes, of_samples = mixed.split([num_classes, len(y)], dim=1)
    own = of_samples.diagonal()
    partner = (of_samples - own.diag()).argmax(dim=1)
    return x, of_classes, {"partner": partner, "share": 1 - own}
