"""Files of tensors that are read as they were written, or not at all.

A safetensors file has a checksum in its metadata, of all tensors and all other metadata. A file of
``torch.save`` has the checksums of a ZIP archive.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kd_lightning.base.errors import COPY, Damaged
from kd_lightning.base.files import atomic_write
from kd_lightning.base.kept_files import check_archive
from kd_lightning.base.system_errors import check_readable

CHECKSUM = "sha256"  # the key in the metadata


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file atomically.

    Args:
        tensors: contiguous, on the CPU.
    """
    metadata = dict(metadata or {})
    metadata[CHECKSUM] = checksum_of(tensors, metadata)
    with atomic_write(path) as unfinished:
        # written by Python: safetensors makes files that only their owner can read
        unfinished.write_bytes(save(dict(tensors), metadata=metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. One without a checksum, of another
    program or an earlier version, is read without.

    Raises:
        Damaged: it is missing, cut short or changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise Damaged(path, "is missing") from error
    except (SafetensorError, OSError) as error:
        check_readable(path, error)
        raise Damaged(path, "is not a complete safetensors file") from error
    was = metadata.pop(CHECKSUM, None)
    if was is not None and was != checksum_of(tensors, metadata):
        raise Damaged(path, "is damaged (its tensors or metadata do not have its checksum)")
    return tensors, metadata


def read_checkpoint(path: Path, advice: str = COPY, *, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint that this package has written with ``torch.save``. Reading it
    executes nothing.

    Args:
        advice: what to do if it is damaged.
        mmap: leave the tensors on the disk, for a caller that does not use them.

    Raises:
        Damaged: it is missing, cut short or changed.
    """
    check_archive(path, advice)
    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # of a damaged table of contents, torch can raise anything
        check_readable(path, error)
        raise Damaged(path, "is damaged", advice) from error


def checksum_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """64 hex digits."""
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
