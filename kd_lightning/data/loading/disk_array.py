"""Samples that lie on a disk as one array, used as if they were a tensor in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

BATCH = 512  # samples that are read at once, on their way to a device


class OnDisk:
    """Images of an array in a file, its rows; what is asked for is read, and nothing else.

    Indexed like a tensor (N, C, H, W) of those rows, whose channels are last in memory, as in the
    file: so resampling on a CPU wants them (``to`` gives planes). The file is mapped into memory,
    so that the system keeps what it has room for, once for all processes.

    Args:
        path: of a .npy file: (M, H, W, C), uint8.
        rows: (N,) int64, which of the M, in order.
        known_by: what the content follows from, for a fingerprint: the file is not read for it.
    """

    def __init__(self, path: Path, rows: Tensor, known_by: str) -> None:
        self.path = path
        self.rows = rows
        self.known_by = known_by
        self._array = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        rows = self._array.take(self.rows[index].numpy(), axis=0).view(np.ndarray)
        return torch.from_numpy(rows).movedim(-1, -3)

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Of the whole array, with the rows that are left out."""
        return self._array.shape

    @property
    def shape(self) -> torch.Size:
        height, width, channels = self._array.shape[1:]
        return torch.Size((len(self), channels, height, width))

    @property
    def nbytes(self) -> int:
        return self.shape.numel()

    def subset(self, indices: Tensor) -> "OnDisk":
        """The rows at ``indices`` of these; nothing is read."""
        return OnDisk(self.path, self.rows[indices], self.known_by)

    def to(self, device: torch.device) -> Tensor:
        """All of them, on a device, as planes: so rows of a tensor are picked fastest."""
        found = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self), BATCH):
            found[start : start + BATCH] = self[start : start + BATCH].to(device)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_array": None}  # or a worker would be sent the whole of it

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _array=np.load(state["path"], mmap_mode="r"))
