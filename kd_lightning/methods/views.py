"""Several views of a batch in one step."""

import torch
from jaxtyping import Num
from torch import Tensor

from kd_lightning.base.errors import UserError


def rotations(x: Num[Tensor, "B C H W"]) -> Num[Tensor, "4*B C H W"]:
    """A batch rotated by 0, 90, 180 and 270 degrees; the row of view v and sample i is v * B + i.

    Raises:
        UserError: the samples are not square images.
    """
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise UserError(
            f"rotations need square images, got samples of shape {tuple(x.shape[1:])}: choose "
            "other data (data=…), or images of one size (data.image_size=…)"
        )
    return torch.cat([torch.rot90(x, turns, dims=(2, 3)) for turns in range(4)])
