"""The cells of text tables: numbers and missing values.

A cell without text, ``?`` and ``NaN`` are missing values. Any other text must be a number as it is
usually written: Python would also read ``1_0`` as ten, and digits of other scripts.
"""

MISSING = ("", "nan", "?")  # a cell or a label with one of these has no value


def is_missing(cell: str) -> bool:
    """Whether a cell of a file has no value."""
    return cell.strip().lower() in MISSING


def to_number(cell: str) -> float:
    """The number in a cell; NaN if it is missing. Raises ``ValueError`` for other text."""
    if is_missing(cell):
        return float("nan")
    if "_" in cell or not cell.isascii():
        raise ValueError(f"could not convert string to float: {cell!r}")
    return float(cell)
