"""``data.on_leak``: finds test samples whose content is in train or val too.

A test on such samples measures memory. Files are compared byte for byte. Most are not opened: a
copy has the size of its original and the same last bytes. Nothing is stored. Samples in one large
file (prepared) or in a storage (streamed) are not checked here, but when they are prepared.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import printable
from kd_lightning.data.loading.batches import Samples

CHOICES = ("warn", "error", "ignore")
LAST_BYTES = 1024
# With ``warn``, of more files than these the sizes are not read, or they are not opened: that would
# take minutes on a slow disk.
MAX_SIZES, MAX_FILES = 500_000, 50_000


class Copy(NamedTuple):
    """A test sample, and the sample of train or val that has the same content."""

    test: str
    other: str


def check_leak(train: Samples, val: Samples | None, test: Samples, on_leak: str) -> list[str]:
    """A note on the test samples that are in train or val too, if there are any.

    Args:
        on_leak: ``warn``; ``error``, which raises; or ``ignore``, which does not look for them.

    Raises:
        UserError: ``on_leak`` is ``error``, and there are such samples.
    """
    if on_leak == "ignore":
        return []
    copies = find_copies(train, val, test, None if on_leak == "error" else MAX_FILES)
    if copies is None:
        return [
            "Test samples that are in train or val too were not looked for, as there are many "
            "files (data.on_leak=error looks for them)."
        ]
    if not copies:
        return []
    found = (
        f"{len(copies)} of {len(test)} test samples are in train or val too, with the same content "
        f"(the first: {copies[0].test} equals {copies[0].other})"
    )
    if on_leak == "error":
        raise UserError(f"{found}: remove the copies, or set data.on_leak=warn")
    return [f"{found}: remove the copies, or hide this by data.on_leak=ignore."]


def find_copies(
    train: Samples, val: Samples | None, test: Samples, max_files: int | None = None
) -> list[Copy] | None:
    """The test samples that are in train or val too; none if the content is not here.

    Args:
        max_files: None is returned if more files than this must be opened; None: no limit.
    """
    others = {"train": train} if val is None else {"train": train, "val": val}
    contents = [part.x for part in (*others.values(), test)]
    if all(isinstance(x, Tensor) for x in contents):
        return copied_rows({name: part.x for name, part in others.items()}, test.x)
    if all(isinstance(x, list) and isinstance(x[0], Path) for x in contents):
        files = list(chain.from_iterable(part.x for part in others.values()))
        return copied_files(files, test.x, max_files)
    return []


def copied_rows(others: dict[str, Tensor], test: Tensor) -> list[Copy]:
    """The rows of ``test`` that are in another part too."""
    seen: dict[bytes, str] = {}
    for part, x in others.items():
        for i, key in enumerate(row_hashes(x)):
            seen.setdefault(key, f"number {i} of {part}")
    keys = enumerate(row_hashes(test))
    return [Copy(f"number {i} of test", seen[key]) for i, key in keys if key in seen]


def row_hashes(x: Tensor) -> list[bytes]:
    """A hash of each row of a tensor (N, …)."""
    rows = x.contiguous().numpy()
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]


def copied_files(
    others: Sequence[Path], test: Sequence[Path], max_files: int | None
) -> list[Copy] | None:
    """The files of ``test`` whose bytes are in a file of ``others`` too; None: too many files."""
    if max_files is not None and len(others) + len(test) > MAX_SIZES:
        return None
    others, test = with_common_key(others, test, file_size)
    if max_files is not None and len(others) + len(test) > max_files:
        return None
    others, test = with_common_key(others, test, last_bytes)
    seen = {key: path for path in reversed(others) if (key := file_hash(path)) is not None}
    keys = [(path, file_hash(path)) for path in test]
    return [Copy(printable(path), printable(seen[key])) for path, key in keys if key in seen]


def with_common_key(
    others: Sequence[Path], test: Sequence[Path], key: Callable[[Path], int | bytes | None]
) -> tuple[list[Path], list[Path]]:
    """The files of both lists that have a key of the other list; None is no key."""
    keys = [[key(path) for path in paths] for paths in (others, test)]
    common = set(keys[0]) & set(keys[1]) - {None}
    return tuple(
        [path for path, its_key in zip(paths, of_paths, strict=True) if its_key in common]
        for paths, of_paths in zip((others, test), keys, strict=True)
    )


def file_size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def last_bytes(path: Path) -> bytes | None:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LAST_BYTES))
            return file.read(LAST_BYTES)
    except OSError:
        return None


def file_hash(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
