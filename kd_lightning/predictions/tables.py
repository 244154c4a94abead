"""Samples from arrays and tables: ``x`` of an .npz file, rows of a .csv or .tsv file.

A sample of an .npz file is an image (C, H, W), uint8 or in [0, 1], or a series (C, L); series of
one channel may be (L). Grey images become colours for a student of colours, and colours grey. A row
of a .csv or .tsv file is a series of one channel, without a label. A first row without numbers is a
header.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import printable
from kd_lightning.base.reading import read_lines, reading
from kd_lightning.base.words import quoted
from kd_lightning.data.loading.cells import is_missing, to_number
from kd_lightning.data.loading.npz_files import read_npz
from kd_lightning.data.loading.resizing import to_channels

Transform = Callable[[Tensor], Tensor]
SUFFIXES = {".npz": None, ".csv": ",", ".tsv": "\t"}  # -> what separates two values


@dataclass(frozen=True)
class Sample:
    """A sample, or the reason why there is none.

    Attributes:
        file: that has it.
        index: its number in the file, from 0; None: the file is the sample.
        x: (C, *size); None if there is an error.
        error: why, without the name of the file; "" if there is none.
    """

    file: Path
    index: int | None = None
    x: Tensor | None = None
    error: str = ""


def read_table(path: Path, given: Mapping[str, Any], transform: Transform) -> Iterator[Sample]:
    """The samples of an .npz, .csv or .tsv file; a single one with an error if it is unreadable.

    Args:
        given: the student's ``info["input"]``.
        transform: of ``Student.transform``, for images of another size than the student's.
    """
    separator = SUFFIXES[path.suffix.lower()]
    try:
        values = read_x(path, given) if separator is None else read_rows(path, separator)
        for index, value in enumerate(values):
            yield to_sample(path, index, value, given, transform)
    except UserError as error:
        yield Sample(path, error=str(error).removeprefix(f"{printable(path)} "))


def without_name(reason: str, path: Path) -> str:
    """The reason of an error without the file, which has its own column in the output."""
    return reason.replace(f": {str(path)!r}", "").replace(f" {str(path)!r}", "")


def read_x(path: Path, given: Mapping[str, Any]) -> np.ndarray:
    """The samples of an .npz file, (N, C, *size).

    Raises:
        UserError: the file is damaged, ``x`` holds no numbers, or it has another shape.
    """
    arrays = read_npz(path, "")
    if "x" not in arrays:
        raise UserError(f"must hold x, it holds {', '.join(sorted(arrays)) or 'nothing'}")
    x = arrays["x"]
    shape = "(N, C, H, W)" if given["kind"] == "image" else "(N, C, L) or (N, L)"
    if given["kind"] == "series" and x.ndim == 2:
        x = x[:, None]
    if x.ndim != (4 if given["kind"] == "image" else 3) or x.dtype.kind not in "iuf":
        raise UserError(f"x must be numbers of shape {shape}, got {x.dtype} of shape {x.shape}")
    return x


def read_rows(path: Path, separator: str) -> Iterator[np.ndarray | str]:
    """The rows of a text file as series (1, L); for a row with anything but numbers, the error."""
    is_first = True
    for number, line in enumerate(read_lines(path, ""), 1):
        # line by line: a quote that is never closed would swallow the rest of the file
        with reading(path, ""):
            cells = next(csv.reader([line], delimiter=separator), [])
        if not cells:
            continue
        fault = next((cell for cell in cells if not is_number(cell)), None)
        if fault is None:
            yield np.array([list(map(to_number, cells))], dtype=np.float32)
        elif not is_first or any(map(is_number, cells)):
            yield f"line {number}: expected numbers such as 0.5, got {quoted(fault)}"
        is_first = False


def is_number(cell: str) -> bool:
    try:
        to_number(cell)
    except ValueError:
        return False
    return not is_missing(cell) or cell.strip().lower() == "nan"


def to_sample(
    path: Path,
    index: int,
    value: np.ndarray | str,
    given: Mapping[str, Any],
    transform: Transform,
) -> Sample:
    """A sample of the size that the student takes; with an error if it cannot be that."""
    if isinstance(value, str):
        return Sample(path, index, error=value)
    is_bytes = value.dtype == np.uint8 and given["kind"] == "image"
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which is a fault
        x = torch.from_numpy(value if is_bytes else value.astype(np.float32))
    if fault := fault_of(x, given):
        return Sample(path, index, error=fault)
    if list(x.shape[1:]) != [given["size"]] * (x.ndim - 1):
        return Sample(path, index, transform(x))
    # its size is the student's: it may have been resized already, and is not cropped again
    return Sample(path, index, to_channels(x, given["channels"]))


def fault_of(x: Tensor, given: Mapping[str, Any]) -> str:
    """Why the student cannot take this sample; "" if it can."""
    if 0 in x.shape:
        return "an empty sample"
    can_convert = given["kind"] == "image" and {x.shape[0], given["channels"]} == {1, 3}
    if x.shape[0] != given["channels"] and not can_convert:
        return f"{x.shape[0]} channels, the student takes {given['channels']}"
    if given["kind"] == "series" and x.shape[1] != given["size"]:
        return f"{x.shape[1]} values, the student takes series of {given['size']}"
    if not x.isfinite().all():
        return "NaN or infinite values"
    if given["kind"] == "image" and x.is_floating_point() and not (x.min() >= 0 and x.max() <= 1):
        return f"images must be uint8 or in [0, 1], got values from {x.min():g} to {x.max():g}"
    return ""
