"""Files that are written now and read in another run: each has a checksum, which is checked when
the file is read. Damage of any kind is one sentence.

Text files have theirs in ``SHA256SUMS`` of their folder, in the form that ``sha256sum`` writes and
checks. A file of ``torch.save`` or NumPy is a ZIP archive, which has a CRC-32 for each part. Files
of safetensors: ``base/tensor_files.py``. A text file of an earlier version has no checksum, and is
read without.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kd_lightning.base.errors import COPY, Damaged
from kd_lightning.base.files import atomic_write
from kd_lightning.base.system_errors import check_readable

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")  # of sha256sum

Sums = dict[str, list[str]]  # name of a file -> SHA-256 of its content


def write_kept(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes text files atomically, and their checksums.

    While a file is replaced, ``SHA256SUMS`` has the checksums of both its contents: a process that
    is killed between two writes leaves no good file that looks bad.

    Args:
        texts: name of the file -> its content.
    """
    contents = {name: text.encode() for name, text in texts.items()}
    new = {name: [hashlib.sha256(data).hexdigest()] for name, data in contents.items()}
    with _one_writer(folder):
        sums = read_sums(folder)
        _write_sums(folder, sums | {name: [*sums.get(name, []), *new[name]] for name in new})
        for name, data in contents.items():
            with atomic_write(folder / name) as unfinished:
                unfinished.write_bytes(data)
        _write_sums(folder, sums | new)


def remove_kept(folder: Path, name: str) -> None:
    """Removes a text file, if it is there, and its checksum."""
    with _one_writer(folder):
        sums = read_sums(folder)
        (folder / name).unlink(missing_ok=True)
        if sums.pop(name, None):
            _write_sums(folder, sums)


def finish_sums(folder: Path) -> None:
    """Removes what a process has left that was killed while it wrote the checksums of a result
    which is complete, and so is not written again. Nothing happens in a folder that cannot be
    locked or changed.
    """
    unfinished = folder / f"{SUMS}.tmp"
    if not unfinished.exists():
        return
    lock = lock_folder(folder, wait=True)  # who writes them now holds it
    if lock is not None:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    """Lets one process at a time write into a folder: two would lose each other's checksums. Where
    a folder cannot be locked (Windows, some network file systems) nothing is.
    """
    lock = lock_folder(folder, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def lock_folder(folder: Path, *, wait: bool) -> int | None:
    """Locks a folder until this process ends, or closes the descriptor that is returned.

    Args:
        wait: until another process has unlocked it.

    Returns:
        None: another process has locked it, or folders cannot be locked here (Windows, some network
        file systems).
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def read_sums(folder: Path) -> Sums:
    """The checksums of a folder's files. A line that cannot be read is left out."""
    try:
        text = (folder / SUMS).read_text("utf-8", errors="replace")
    except OSError:
        return {}
    sums: Sums = {}
    for line in filter(None, map(LINE.fullmatch, text.splitlines())):
        sums.setdefault(line[2], []).append(line[1])
    return sums


def _write_sums(folder: Path, sums: Sums) -> None:
    lines = [f"{digest}  {name}\n" for name in sorted(sums) for digest in sums[name]]
    with atomic_write(folder / SUMS) as unfinished:
        unfinished.write_text("".join(lines), encoding="utf-8")


def read_bytes(path: Path, advice: str = COPY) -> bytes:
    """The content of a kept file.

    Args:
        advice: what to do if it is damaged.

    Raises:
        Damaged: it is missing, or not what was written.
        UserError: it cannot be read now, or not by this person.
    """
    sums = read_sums(path.parent)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise Damaged(path, "is missing", advice) from error
    except OSError as error:
        check_readable(path, error)
        raise Damaged(path, f"cannot be read ({error.strerror})", advice) from error
    # read twice: another process may have replaced the file since the first time
    digests = [*sums.get(path.name, []), *read_sums(path.parent).get(path.name, [])]
    if digests and hashlib.sha256(data).hexdigest() not in digests:
        what = "is not what was written" if data else "is empty"
        changed = f"{advice}; if you have changed it yourself, remove its line from {SUMS}"
        raise Damaged(path, f"{what} (its SHA-256 is not that in {SUMS})", changed)
    return data


def read_text(path: Path, advice: str = COPY) -> str:
    """The content of a kept text file. Raises ``Damaged``, see ``read_bytes``."""
    try:
        return read_bytes(path, advice).decode()
    except UnicodeDecodeError as error:
        raise Damaged(path, "is no text in UTF-8", advice) from error


def read_json(path: Path, *keys: str, advice: str = COPY) -> dict[str, Any]:
    """The content of a kept JSON file of keys and values.

    Args:
        keys: that it must have.
        advice: what to do if it is damaged.

    Raises:
        Damaged: see ``read_bytes``; or it is no such file.
    """
    text = read_text(path, advice)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, "is empty or no valid JSON", advice) from error
    return with_keys(content, path, *keys, advice=advice)


def with_keys(content: Any, path: Path, *keys: str, advice: str = COPY) -> dict[str, Any]:
    """``content`` of a file, which must be keys and values. Raises ``Damaged`` if it is not, or if
    one of ``keys`` is missing.
    """
    if not isinstance(content, Mapping):
        raise Damaged(path, "is empty or has no keys and values", advice)
    if missing := [key for key in keys if content.get(key) is None]:
        raise Damaged(path, f"has no {missing[0]}", advice)
    return content


def check_archive(path: Path, advice: str = COPY) -> None:
    """Checks a file of ``torch.save`` or NumPy by the CRC-32 of each part. Nothing is unpickled.

    A file that was written without them (torch can leave them out) has zeros there, and only its
    structure is checked.

    Args:
        advice: what to do if it is damaged.

    Raises:
        Damaged: it is missing, cut short or changed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            has_checksums = any(part.CRC for part in archive.infolist())
            bad = archive.testzip() if has_checksums else None
    except FileNotFoundError as error:
        raise Damaged(path, "is missing", advice) from error
    except Exception as error:  # a damaged archive can raise anything
        check_readable(path, error)
        raise Damaged(path, "is damaged or cut short", advice) from error
    if bad is not None:
        raise Damaged(path, f"is damaged (the checksum of its part {bad} is wrong)", advice)
