"""``DiskArray``: images in one .npy file, used like a tensor in memory.

``data=prepared`` (``data/prepared.py``) reads its images with it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

BATCH = 512  # number of samples that are read at once when all are copied to a device


class DiskArray:
    """Some rows of an array in a file; each row is an image. Only indexed rows are read.

    It is indexed like a tensor (N, C, H, W). The results have channels last in memory, as in the
    file, because resampling on a CPU is fastest with this layout (``to`` returns contiguous
    tensors). The file is memory-mapped, so the operating system caches it once for all processes.

    Args:
        path: a .npy file of shape (M, H, W, C), uint8.
        rows: (N,) int64, indices of the rows that are used, in order.
        content_id: text that identifies the content; the fingerprint uses it, so that the file need
            not be read.
    """

    def __init__(self, path: Path, rows: Tensor, content_id: str) -> None:
        self.path = path
        self.rows = rows
        self.content_id = content_id
        self._array = np.lib.format.open_memmap(path, mode="r")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        rows = self._array.take(self.rows[index].numpy(), axis=0).view(np.ndarray)
        return torch.from_numpy(rows).movedim(-1, -3)

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Shape of the array in the file, including unused rows."""
        return self._array.shape

    @property
    def file_dtype(self) -> np.dtype:
        """Type of the values in the file."""
        return self._array.dtype

    @property
    def shape(self) -> torch.Size:
        height, width, channels = self._array.shape[1:]
        return torch.Size((len(self), channels, height, width))

    @property
    def nbytes(self) -> int:
        return self.shape.numel()

    def subset(self, indices: Tensor) -> "DiskArray":
        """The rows at ``indices`` of these rows. Nothing is read."""
        return DiskArray(self.path, self.rows[indices], self.content_id)

    def to(self, device: torch.device) -> Tensor:
        """Reads all rows into a contiguous tensor on ``device``: its rows are indexed fastest."""
        x = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self), BATCH):
            x[start : start + BATCH] = self[start : start + BATCH].to(device)
        return x

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_array": None}  # do not send the content to a worker

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _array=np.lib.format.open_memmap(state["path"], mode="r"))
