"""Numbers and names as sentences show them."""

from collections.abc import Sequence


def percent(share: float, digits: int = 2) -> str:
    """A share of 1, such as "98.33 %"."""
    return f"{100 * share:.{digits}f} %"


def shorten(names: Sequence[str], most: int = 5) -> str:
    """The first of many names."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def cut(text: str, length: int) -> str:
    """A text of at most ``length`` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
