"""The text formats of time-series archives: .ts files, and tables with the label in front.

A cell without text, ``?`` (in .ts files) and ``NaN`` are missing values. They keep their place in
time. A label is text and never becomes a number here. Every refusal names the file and the line.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from kd_lightning.base.errors import UserError

Row = tuple[int, str, list[list[str]]]  # line number, label, values of each channel as text

MISSING = ("", "nan", "?")  # a cell or a label with one of these has no value
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, in Latin-1, or in UTF-16 with a byte-order mark.

    A byte-order mark is no part of the text. Lines end as in an editor, so that numbers of lines
    are those that an editor shows.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith(UTF16_MARKS) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        # Latin-1 has a character for every byte, so different labels stay different
        text = "\0" if encoding == "utf-16" else content.decode("latin-1")
    if "\0" in text:
        raise UserError(
            f"{path} must be text in UTF-8, Latin-1, or UTF-16 with a byte-order mark: save it as "
            "UTF-8 (data.root=…)"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_ts(path: Path) -> Iterator[Row]:
    """A .ts file: a header up to ``@data``, then lines ``1,2,…:3,4,…:label`` of two channels."""
    lines = read_lines(path)
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
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    separator = next((sign for sign in "\t;," if lines and sign in lines[0][1]), None)
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


def is_missing(cell: str) -> bool:
    """Whether a cell of a file has no value."""
    return cell.strip().lower() in MISSING


def to_number(cell: str) -> float:
    """The number in a cell; NaN if it is missing. Raises ``ValueError`` for other text."""
    return float("nan") if is_missing(cell) else float(cell)


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
            return f"a series must hold numbers such as 0.5, got '{cell}'{advice}"
    raise AssertionError("all cells are numbers")
