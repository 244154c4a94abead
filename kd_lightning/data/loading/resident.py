"""Whether samples are held on the device that learns from them: ``data.resident``."""

from typing import Literal

import torch
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import in_bytes
from kd_lightning.data.loading.batches import SampleSet


def is_to_be_held(
    samples: SampleSet,
    part: str,
    device: torch.device,
    resident: bool | Literal["auto"],
    num_workers: int,
) -> bool:
    """Whether a part's samples are to be held on the device.

    Args:
        resident: "auto": on a GPU what takes less than a quarter of what is free, on a CPU what
            is a tensor, where no workers were asked for.

    Raises:
        UserError: they are to be, and cannot.
    """
    if not resident:
        return False
    if resident == "auto":
        if not samples.can_be_resident:
            return False
        if device.type == "cuda":
            return samples.samples.x.nbytes < torch.cuda.mem_get_info(device)[0] / 4
        return device.type == "cpu" and isinstance(samples.samples.x, Tensor) and not num_workers
    if not samples.can_be_resident:
        raise UserError(
            "data.resident=true holds data that are in memory and augmented in whole batches, "
            "and these are files, or augmented one by one: set data.resident=auto, or "
            "another augmentation@data.augmentation=…"
        )
    if device.type == "cuda":
        size, free = samples.samples.x.nbytes, torch.cuda.mem_get_info(device)[0]
        if size > free:
            raise UserError(
                f"data.resident=true would hold {in_bytes(size)} of {part} on a device that has "
                f"{in_bytes(free)} left: set data.resident=auto"
            )
    return True
