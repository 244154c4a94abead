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
    """Gives a temporary path to write to, and renames it to ``path`` at the end.

    After an error or an interrupt the temporary file is removed, and ``path`` is unchanged.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in FULL:  # a plain write names no file, and a copy the one that it reads
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # without it, a power failure may leave an empty file


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


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
