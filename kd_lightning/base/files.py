"""Files that are written atomically: an error leaves no half-written file. Paths and sizes as
text.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kd_lightning.base.disks import FULL
from kd_lightning.base.errors import UserError

LONGEST_NAME = 100  # bytes; file systems take 255, and the names of runs and files have more parts


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to, and renames it to ``path`` when it is on the disk.

    After an error or an interrupt the temporary file is removed, and ``path`` is unchanged.

    Raises:
        UserError: the folder of ``path`` is gone.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except Exception as error:
        # a plain write names no file, and a copy the one that it reads
        if isinstance(error, OSError) and error.errno in FULL:
            raise OSError(error.errno, error.strerror, str(path)) from error
        is_replaced = isinstance(error, FileNotFoundError) and str(error.filename) == str(temporary)
        if path.parent.is_dir() and not is_replaced:
            raise
        raise UserError(
            f"cannot write {path}: its folder is gone; it was removed, renamed or replaced, or its "
            "disk is no longer mounted"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json_text(value))


def json_text(value: Any) -> str:
    """The text of a JSON file, for people too."""
    return json.dumps(value, indent=2) + "\n"


def sync(path: Path) -> None:
    """Waits until a file is on the disk. Without it, a power failure may leave an empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def set_aside(path: Path) -> Path:
    """Renames a damaged file or folder to ``<name>.damaged``, or the same with a number if that
    exists. Returns the new path.
    """
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    return path.rename(aside)


def check_name(name: str, key: str) -> None:
    """Raises ``UserError`` for a text that is not the name of one file or folder.

    Args:
        key: that has it.
    """
    is_one = name and name == Path(name).name and "\\" not in name and not name.startswith(".")
    if not (is_one and name.isprintable() and len(name.encode()) <= LONGEST_NAME):
        raise UserError(
            f"{key} must be a name, without / or a dot in front, of at most {LONGEST_NAME} bytes, "
            f"got {name!r}"
        )


def printable(path: str | os.PathLike) -> str:
    r"""A path as text for messages: bytes that are not UTF-8 become ``\xe9``.

    Python keeps such bytes as surrogates, which cannot be printed or encoded.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def format_bytes(size: int) -> str:
    """A number of bytes as text, such as "1.5 MB"."""
    power = min(3, max(1, (len(str(size)) - 1) // 3))
    return f"{size / 1000**power:.1f} {' kMG'[power]}B"
