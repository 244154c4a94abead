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


def for_plot(text: str) -> str:
    """A text for matplotlib, which takes what stands between two dollar signs for a formula."""
    return text.replace("$", r"\$")


def plain(text: str) -> str:
    r"""Text on one line, in which signs that cannot be printed are written out: ``\x00``."""
    signs = " ".join(text.split())
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in signs
    )


def quoted(text: str) -> str:
    """A piece of a file in quotes, as a sentence shows it: on one line, and cut if it is long."""
    return f"'{cut(plain(text), 40)}'"
