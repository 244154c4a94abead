"""Text files that hold a table of numbers. A refusal names the file, the line and the value."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Num

from kd_lightning.base.errors import UserError
from kd_lightning.base.reading import read_lines
from kd_lightning.base.words import quoted

KEY = "data.root"  # that names the files, for messages


def read_numbers(
    path: Path,
    dtype: type,
    *,
    columns: int | None = None,
    use: Sequence[int] | None = None,
    delimiter: str | None = None,
    skip: int = 0,
) -> Num[np.ndarray, "rows columns"]:
    """The numbers of a text file, one row of the array for each line.

    Args:
        columns: number of columns that every line must have; None: any that all lines have.
        use: the columns that are read; None: all.
        delimiter: of the columns; None: spaces.
        skip: number of lines before the table.

    Raises:
        UserError: a cell is no finite number, a line has another number of columns, or there is no
            line.
    """
    lines = read_lines(path, KEY)[skip:]
    if not any(map(str.strip, lines)):
        raise UserError(f"{path} must be a table of numbers, it has none (data.root=…)")
    reason = "a number is missing"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # NumPy < 2.3 reads 4.5 as 4
            values = np.loadtxt(
                lines, dtype=dtype, delimiter=delimiter, usecols=use, ndmin=2, comments=None
            )
        widths = {values.shape[1]} if use is None else widths_of(lines, delimiter)
        if np.isfinite(values).all() and len({columns or min(widths), *widths}) == 1:
            return values
    except (ValueError, OverflowError, DeprecationWarning) as error:
        reason = str(error)
    cells = [line.split(delimiter) for line in lines]
    first = next(row for row in cells if "".join(row).strip())
    columns = columns or max(len(first), 1 + max(use or [0]))
    for number, row in enumerate(cells, skip + 1):
        if "".join(row).strip() and (fault := fault_of(row, dtype, columns, use)):
            raise UserError(f"{path}, line {number}: {fault} (data.root=…)")
    raise UserError(f"{path} must be a table of numbers: {reason} (data.root=…)")


def widths_of(lines: Sequence[str], delimiter: str | None) -> set[int]:
    """The numbers of columns of the lines: with several, one of them may be shifted."""
    return {len(line.split(delimiter)) for line in lines if line.strip()}


def fault_of(cells: list[str], dtype: type, columns: int, use: Sequence[int] | None) -> str | None:
    """What was expected instead of a row of text, and what came; None if it is right."""
    if len(cells) != columns:
        return f"expected {columns} {'column' if columns == 1 else 'columns'}, got {len(cells)}"
    for cell in cells if use is None else [cells[i] for i in use]:
        if not is_number(cell, dtype):
            kind = "whole number" if np.issubdtype(dtype, np.integer) else "finite number"
            return f"expected a {kind}, got {quoted(cell)}"
    return None


def line_of(path: Path, row: int) -> str:
    """The file and the line of a row of its table, for errors."""
    numbers = [i for i, line in enumerate(read_lines(path, KEY), 1) if line.strip()]
    return f"{path}, line {numbers[row]}"


def is_number(cell: str, dtype: type) -> bool:
    """Whether a cell is a finite number of this type."""
    try:
        with np.errstate(over="ignore"):
            return "_" not in cell and cell.isascii() and bool(np.isfinite(dtype(cell.strip())))
    except (ValueError, OverflowError):
        return False
