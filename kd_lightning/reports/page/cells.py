"""How cells of a table are sorted, and where their text may break."""

import re

from markupsafe import Markup

NUMBER = re.compile(r"^[<>]?\s*([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)")


def sort_value(cell: str) -> str:
    """The number that a cell begins with, such as 97.1 of "97.10 ± 0.25", as text; "" without."""
    match = NUMBER.match(cell.strip().replace("−", "-"))
    return match.group(1).replace(",", "") if match else ""


def breakable(text: str) -> Markup:
    """The escaped text, which may break after each slash: names of columns are long."""
    return Markup("/<wbr>").join(text.split("/"))
