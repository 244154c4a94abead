"""The text formats of time-series archives: .ts files, and tables with the label in front.

A missing value (``cells.py``) keeps its place in time. A label is text and never becomes a number
here. Every refusal names the file and the line.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from kd_lightning.base.errors import UserError
from kd_lightning.base.reading import read_lines
from kd_lightning.base.words import quoted
from kd_lightning.data.loading.cells import to_number

KEY = "data.root"  # that names the files, for messages
SHORTEST = 8  # of the archives' series; a shorter one may count by chance
Row = tuple[int, str, list[list[str]]]  # line number, label, values of each channel as text


def read_ts(path: Path) -> Iterator[Row]:
    """A .ts file: a header up to ``@data``, then lines ``1,2,…:3,4,…:label`` of two channels."""
    lines = read_lines(path, KEY)
    tags = [line.lower().split() if line.startswith("@") else [] for line in lines]
    if ["@data"] not in tags:
        raise UserError(f"{path} is not a .ts file, it has no line @data (data.root=…)")
    start = tags.index(["@data"]) + 1
    header = {tag[0]: tag[1] for tag in tags[:start] if len(tag) > 1}
    if header.get("@classlabel") != "true":
        raise UserError(
            f"{path} is not a classification problem: no @classLabel true (data.name=…)"
        )
    if header.get("@timestamps") == "true":
        raise UserError(f"{path} has time stamps, which are not supported (data.name=…)")
    for number, line in enumerate(lines[start:], start + 1):
        if line.strip():
            *channels, label = line.strip().split(":")
            yield number, label.strip(), [channel.split(",") for channel in channels]


def read_table(path: Path) -> Iterator[Row]:
    """A .tsv, .csv or .txt file: each line is the label and then a series of one channel.

    The cells are separated by tabs, semicolons, commas or spaces: by the first of these that is in
    the first line. Between spaces no cell can be empty, so all lines must then have as many cells.
    """
    lines = [(number, line) for number, line in enumerate(read_lines(path, KEY), 1) if line.strip()]
    separator = next((sign for sign in "\t;," if lines and sign in lines[0][1]), None)
    refuse_header([line.split(separator) for _, line in lines], path)
    first = None
    for number, line in lines:
        label, *values = line.split(separator)
        first = first or (number, len(values))
        if separator is None and len(values) != first[1]:
            raise UserError(
                f"{path}, line {number}: expected {first[1]} values, as in line {first[0]}, got "
                f"{len(values)}; write NaN for a missing value (data.root=…)"
            )
        yield number, label.strip(), [values]


def refuse_header(rows: list[list[str]], path: Path) -> None:
    """Raises ``UserError`` if the first row is a header of numbers, as pandas writes: 0 to n, or
    the numbers of the steps after a name that is no label of another row.
    """
    (label, *steps), *others = [[cell.strip() for cell in row] for row in rows] or [[""]]
    counted = [[str(step) for step in range(start, start + len(steps))] for start in (0, 1)]
    is_label = label in {row[0] for row in others} and [label, *steps] != ["0", *counted[1]]
    if len(steps) >= SHORTEST and steps in counted and not is_label:
        raise UserError(
            f"{path}: the first line looks like a header, {label},{steps[0]},{steps[1]},…: remove "
            "it (data.root=…)"
        )


def to_numbers(channels: list[list[str]], where: str) -> Float[np.ndarray, "C L"]:
    """The values of a series as numbers.

    Args:
        where: the file and the line, for errors.
    """
    lengths = sorted({len(channel) for channel in channels})
    if len(lengths) > 1:
        raise UserError(
            f"{where}: a series must have channels of equal length, got "
            f"{' and '.join(map(str, lengths))} values (data.root=…)"
        )
    try:
        values = np.array([list(map(to_number, channel)) for channel in channels])
    except ValueError:
        raise UserError(f"{where}: {expected_number(channels)} (data.root=…)") from None
    with np.errstate(over="ignore"):  # refused here
        values = values.astype(np.float32)
    if np.isinf(values).any():
        raise UserError(f"{where}: a series must have finite values (data.root=…)")
    return values


def expected_number(channels: list[list[str]]) -> str:
    """What was expected instead of the first cell that is no number."""
    for cell in (cell.strip() for channel in channels for cell in channel):
        try:
            to_number(cell)
        except ValueError:
            advice = ": write decimals with a point" if re.fullmatch(r"[-+\d]+,\d+", cell) else ""
            return f"a series must hold numbers such as 0.5, got {quoted(cell)}{advice}"
    raise AssertionError("all cells are numbers")
