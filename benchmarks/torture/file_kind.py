"""What a kind of file is to ``file_fuzz.py``, and slow readers of text that several kinds share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Numbers = dict[str, Any]  # names -> arrays, or lists of plain values


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        form: what ``file_mutants.mutate`` should know of it.
        write: writes a sound example into a folder.
        files: of the example, those that are changed.
        read: reads the example as the framework does, after ``file`` was changed.
        reread: reads ``file`` alone with another program; raises if it cannot be read.
    """

    form: str
    write: Callable[[Path], None]
    files: Sequence[str]
    read: Callable[[Path, Path], Numbers]
    reread: Callable[[Path], Numbers]


def slow_text(file: Path) -> str:
    """UTF-16 if it is marked as such, else UTF-8, else Latin-1."""
    content = file.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def slow_number(cell: str) -> float:
    """NumPy's own reading of a number."""
    cell = cell.strip()
    if cell.lower() in ("", "?", "nan"):
        return float("nan")
    return float(np.loadtxt([cell], comments=None, dtype=np.float64, ndmin=1).item())
