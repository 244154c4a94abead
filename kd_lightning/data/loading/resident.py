"""``data.resident``: decides whether samples are stored on the device of the network."""

from typing import Literal

import torch
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import format_bytes
from kd_lightning.data.loading.batches import SampleSet


def should_be_resident(
    samples: SampleSet,
    part: str,
    device: torch.device,
    resident: bool | Literal["auto"],
    num_workers: int,
) -> bool:
    """Whether the samples of a part are stored on ``device``.

    Args:
        resident: True, False, or "auto". "auto": on a GPU, yes if they take less than a quarter of
            the free memory; on a CPU, yes if they are a tensor and ``num_workers`` is 0.

    Raises:
        UserError: ``resident`` is True, but the samples cannot be stored on the device.
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
            "data.resident=true needs data that are one array and augmented in whole batches, but "
            "these are files, or augmented one by one: set data.resident=auto, or another "
            "augmentation@data.augmentation=…"
        )
    if device.type == "cuda":
        size, free = samples.samples.x.nbytes, torch.cuda.mem_get_info(device)[0]
        if size > free:
            raise UserError(
                f"data.resident=true would store {format_bytes(size)} of {part} on a device with "
                f"{format_bytes(free)} of free memory: set data.resident=auto"
            )
    return True
