"""Reads the files that people give. What cannot be read gives one sentence with file and line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import printable
from kd_lightning.base.words import cut, plain

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def reading(path: Path, key: str, advice: str = "repair or replace it") -> Iterator[None]:
    """Inside, whatever a library raises for a damaged file becomes a ``UserError``.

    A damaged file can make a library raise anything, so only the code of a library belongs inside.

    Args:
        key: that names the file, for the message; "": the file has no key.
    """
    end = f" ({key}=…)" if key else ""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{printable(path)} cannot be read: {plain(reason)}{end}") from error
    except Exception as error:
        reason = cut(plain(str(error)).partition(". ")[0], 100) or type(error).__name__
        raise UserError(
            f"{printable(path)} is damaged or of another kind: {reason}: {advice}{end}"
        ) from error


def read_text(path: Path, key: str) -> str:
    """A text file in UTF-8, in Latin-1, or in UTF-16 with a byte-order mark, with its lines ended
    by ``\\n`` alone. A byte-order mark is no part of the text.

    Args:
        key: that names the file, for the message.

    Raises:
        UserError: the file cannot be read, or has another encoding.
    """
    with reading(path, key):
        content = path.read_bytes()
    encoding = "utf-16" if content.startswith(UTF16_MARKS) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        # Latin-1 has a character for every byte, so different names stay different
        text = "\0" if encoding == "utf-16" else content.decode("latin-1")
    if "\0" in text:
        raise UserError(
            f"{printable(path)} must be text in UTF-8, Latin-1, or UTF-16 with a byte-order mark: "
            f"save it as UTF-8{f' ({key}=…)' if key else ''}"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, key: str) -> list[str]:
    """The lines of ``read_text``, with the numbers that an editor shows."""
    return read_text(path, key).split("\n")


def read_json(path: Path, key: str, advice: str = "repair or replace it") -> Any:
    """The content of a JSON file.

    Raises:
        UserError: the file cannot be read, or is no JSON; the message names the line.
    """
    text = read_text(path, key)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{printable(path)}, line {error.lineno}, column {error.colno}: expected JSON "
            f"({error.msg.removesuffix(' at')}): {advice} ({key}=…)"
        ) from None
    except RecursionError:
        raise UserError(
            f"{printable(path)} is JSON in too many levels: {advice} ({key}=…)"
        ) from None
