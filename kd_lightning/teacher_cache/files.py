"""The files of a teacher's cache: each value has one file for every block of a view's samples.

Files are written atomically, and end with the CRC-32 of their rows.

Dimensions: V views, N training samples, B batch, C classes.
"""

import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.files import atomic_write, format_bytes
from kd_lightning.data.loading.batches import Values
from kd_lightning.teacher_cache.top_logits import expanded

BLOCK = 4096  # samples of one view
CHECKSUM = 4  # bytes at the end of a file; files of earlier versions have none
AGAIN = "run the same command again, which sets it aside and computes it again"
# all else: float32
DTYPES = {"logits": torch.float16, "features": torch.float16, "top_logits": torch.float16,
          "top_classes": torch.int32}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """One cached output.

    Attributes:
        name: the method's name for it ("logits").
        shape: for one sample.
        stem: of its files.
    """

    name: str
    shape: tuple[int, ...]
    stem: Path

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES.get(self.name, torch.float32)

    @property
    def row(self) -> int:
        """Bytes for one sample."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def file(self, view: int, start: int) -> Path:
        """Of the block that begins with sample ``start``; it exists when it has been written."""
        return self.stem.with_name(f"{self.stem.name}.{view}-{start}")


class CachedOutputs:
    """The cached outputs of samples, read from the files one view at a time, and held on the device
    of the indices.

    Args:
        values: that are cached.
        samples: N.
        num_classes: C.
    """

    def __init__(self, values: list[Value], samples: int, num_classes: int) -> None:
        self.values = values
        self.samples = samples
        self.num_classes = num_classes
        self._held: tuple[int, torch.device] | None = None
        self._rows: Values = {}

    def __call__(self, view: int, indices: Tensor) -> Values:
        if self._held != (view, indices.device):
            self._held, self._rows = None, {}  # there may be no memory for two views
            self._rows = {v.name: self._read(v, view, indices.device) for v in self.values}
            self._held = view, indices.device
        batch = {name: rows[indices] for name, rows in self._rows.items()}
        return expanded(batch, self.num_classes)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_held": None, "_rows": {}}  # a worker reads the files itself

    def _read(self, value: Value, view: int, device: torch.device) -> Tensor:
        rows = torch.empty(self.samples, *value.shape, dtype=value.dtype, device=device)
        for start in starts(self.samples):
            block = read(value, view, start, self.samples)
            rows[start : start + len(block)] = block.to(device)
        return rows


def read(value: Value, view: int, start: int, samples: int) -> Tensor:
    """A block of a value.

    Raises:
        Damaged: the file is missing, not as long as it must be, or not as it was written.
    """
    path, rows = value.file(view, start), len(block_of(start, samples))
    try:
        data = bytearray(path.read_bytes())  # torch warns of memory that cannot be written to
    except FileNotFoundError as error:
        raise Damaged(path, "is missing", AGAIN) from error
    checksum = bytes(data[rows * value.row :])
    del data[rows * value.row :]
    if len(data) < rows * value.row or len(checksum) not in (0, CHECKSUM):
        found = f"{len(data) + len(checksum)} bytes of {rows * value.row + CHECKSUM}"
        raise Damaged(path, f"is damaged (it has {found})", AGAIN)
    if checksum and checksum != checksum_of(data):
        raise Damaged(path, "is damaged (its checksum is wrong)", AGAIN)
    return torch.frombuffer(data, dtype=value.dtype).view(rows, *value.shape)


def checksum_of(data: bytes | bytearray) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM, "little")


def write(path: Path, rows: Tensor) -> None:
    """Writes a block atomically."""
    data = rows.contiguous().numpy().tobytes()
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(data + checksum_of(data))


def starts(samples: int) -> range:
    """The first sample of every block."""
    return range(0, samples, BLOCK)


def block_of(start: int, samples: int) -> range:
    """The samples of the block that begins with ``start``."""
    return range(start, min(start + BLOCK, samples))


def all_blocks(count: int, samples: int) -> Iterator[tuple[int, int]]:
    return ((view, start) for view in range(count) for start in starts(samples))


def check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"the teacher's cache needs {format_bytes(size)}, and {folder} has "
            f"{format_bytes(free)} left: lower teacher.cache, or set teacher.cache_store"
        )
