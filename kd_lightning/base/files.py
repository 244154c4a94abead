"""Files that are whole or not there: a full disk or an interrupt leaves no half of one; sizes."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a path to write to. It becomes ``path`` at the end; after an error it is removed, and
    ``path`` is what it was.
    """
    unfinished = path.with_name(f"{path.name}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with whole(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # or a power failure may leave an empty file of this name


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    with whole(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=2) + "\n")


def in_bytes(size: int) -> str:
    """A number of bytes, for people."""
    power = min(3, max(1, (len(str(size)) - 1) // 3))
    return f"{size / 1000**power:.1f} {' kMG'[power]}B"
