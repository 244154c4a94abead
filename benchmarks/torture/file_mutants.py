"""Seeded changes of small files: of any bytes, of the lines and cells of a text, and of what is
inside a file with checksums, which are then made right again.
"""

import io
import json
import random
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

HEAD, TAIL = 256, 64  # bytes at the start and at the end, where formats keep their facts
ODD_CELLS = (
    *("", " ", "?", "NaN", "inf", "1e39", "1e400", "0,5", "1_0", "１２", "0x10", "1d5", "1e2"),
    *("01", "--1", "abc", '"1"', "1#2", "#", "1 2", "\ufeff1", "−1", "é", "1.", ".5", "+1", "a?"),
)
PNG_SIGNATURE = 8


class Mutant(NamedTuple):
    """A changed file.

    Attributes:
        how: name of the change.
        content: of the file.
        is_same: whether the change has no meaning, so that the file must be read as before.
    """

    how: str
    content: bytes
    is_same: bool = False


def mutate(content: bytes, form: str, luck: random.Random) -> Mutant:
    """A mutant of a file.

    Args:
        form: what the file is: ``binary``, ``text``, or one of ``INSIDE``.
    """
    if form == "text" and luck.random() < 0.75:
        return luck.choice(TEXT)(content.decode(), luck)
    if form in INSIDE and luck.random() < 0.5:
        return Mutant("inside", INSIDE[form](content, luck))
    return change_bytes(content, luck)


def change_bytes(content: bytes, luck: random.Random) -> Mutant:
    """A change of bytes, in half of the cases near the start or the end."""
    change = luck.choice(BYTES)
    return Mutant(change.__name__, change(content, luck))


def place(size: int, luck: random.Random) -> int:
    part = luck.choice(["head", "tail", "any", "any"])
    if part == "head":
        return luck.randrange(min(HEAD, size) + 1)
    return luck.randrange(max(0, size - TAIL) if part == "tail" else 0, size + 1)


def span(size: int, luck: random.Random) -> slice:
    start = place(size, luck)
    return slice(start, start + luck.choice([1, 2, 4, 16, 100]))


def flip_bit(content: bytes, luck: random.Random) -> bytes:
    changed = bytearray(content)
    changed[min(place(len(content), luck), len(content) - 1)] ^= 1 << luck.randrange(8)
    return bytes(changed)


def set_bytes(content: bytes, luck: random.Random) -> bytes:
    where = span(len(content), luck)
    some = luck.choice([b"\0", b"\xff", b"\n", luck.randbytes(1)])
    return content[: where.start] + some * len(content[where]) + content[where.stop :]


def cut(content: bytes, luck: random.Random) -> bytes:
    return content[: place(len(content), luck)]


def insert(content: bytes, luck: random.Random) -> bytes:
    where = place(len(content), luck)
    return content[:where] + luck.randbytes(luck.choice([1, 2, 8, 50])) + content[where:]


def remove(content: bytes, luck: random.Random) -> bytes:
    where = span(len(content), luck)
    return content[: where.start] + content[where.stop :]


def repeat(content: bytes, luck: random.Random) -> bytes:
    where = span(len(content), luck)
    return content[: where.stop] + content[where] + content[where.stop :]


def append(content: bytes, luck: random.Random) -> bytes:
    return content + luck.choice([b"\0" * 64, b"\n", content, luck.randbytes(20)])


BYTES: list[Callable[[bytes, random.Random], bytes]]
BYTES = [flip_bit, flip_bit, set_bytes, cut, insert, remove, repeat, append]


def separator(text: str) -> str:
    return next((sign for sign in "\t;:, " if sign in text), " ")


def odd_cell(text: str, luck: random.Random) -> Mutant:
    sign = separator(text)
    lines = text.split("\n")
    number = luck.randrange(len(lines))
    cells = lines[number].split(sign)
    cells[luck.randrange(len(cells))] = (cell := luck.choice(ODD_CELLS))
    lines[number] = sign.join(cells)
    return Mutant(f"cell {cell!r}", "\n".join(lines).encode())


def other_lines(text: str, luck: random.Random) -> Mutant:
    lines = text.split("\n")
    first, second = luck.randrange(len(lines)), luck.randrange(len(lines))
    how = luck.choice(["swap lines", "repeat line", "remove line", "join lines", "blank line"])
    if how == "swap lines":
        lines[first], lines[second] = lines[second], lines[first]
    elif how == "repeat line":
        lines.insert(second, lines[first])
    elif how == "remove line":
        del lines[first]
    elif how == "join lines":
        lines[first : first + 2] = ["".join(lines[first : first + 2])]
    else:
        lines.insert(second, "")
    return Mutant(how, "\n".join(lines).encode())


def other_separator(text: str, luck: random.Random) -> Mutant:
    signs = luck.choice(
        [("\t", ","), (",", ";"), (",", "\t"), ("\t", " "), (".", ","), ("\t", "|")]
    )
    lines = text.split("\n")
    some = luck.choice([slice(None), slice(luck.randrange(len(lines)), None)])
    lines[some] = [line.replace(*signs) for line in lines[some]]
    return Mutant(f"{signs[0]!r} to {signs[1]!r}", "\n".join(lines).encode())


def other_encoding(text: str, luck: random.Random) -> Mutant:
    encoding = luck.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
    return Mutant(encoding, text.encode(encoding, "replace"), is_same=True)


def other_newlines(text: str, luck: random.Random) -> Mutant:
    newline = luck.choice(["\r\n", "\r"])
    return Mutant(f"newline {newline!r}", text.replace("\n", newline).encode(), is_same=True)


TEXT: list[Callable[[str, random.Random], Mutant]]
TEXT = [odd_cell, odd_cell, other_lines, other_separator, other_encoding, other_newlines]


def inside_zip(content: bytes, luck: random.Random) -> bytes:
    """A member is changed, and the archive is written anew."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = luck.choice(list(members))
    members[name] = change_bytes(members[name], luck).content if members[name] else b"?"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return file.getvalue()


def inside_png(content: bytes, luck: random.Random) -> bytes:
    """The data of a chunk are changed, and its length and checksum are made right."""
    chunks, start = [], PNG_SIGNATURE
    while start < len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        chunks.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + size]))
        start += 12 + size
    number = luck.randrange(len(chunks))
    kind, data = chunks[number]
    chunks[number] = kind, change_bytes(data, luck).content if data else b"?"
    return content[:PNG_SIGNATURE] + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in chunks
    )


def inside_safetensors(content: bytes, luck: random.Random) -> bytes:
    """The header is changed, and its length is made right."""
    end = 8 + int.from_bytes(content[:8], "little")
    if luck.random() < 0.5:
        header = change_bytes(content[8:end], luck).content
    else:
        header = json.dumps(change_value(json.loads(content[8:end]), luck)).encode()
    return len(header).to_bytes(8, "little") + header + content[end:]


def inside_json(content: bytes, luck: random.Random) -> bytes:
    """A value becomes one of another kind, or a key is lost."""
    return json.dumps(change_value(json.loads(content), luck)).encode()


def change_value(value: object, luck: random.Random) -> object:
    """Some value at any depth is replaced, or it is removed."""
    inner = (
        list(value)
        if isinstance(value, dict)
        else range(len(value or ""))
        if isinstance(value, list)
        else []
    )
    if not inner or luck.random() < 0.2:
        return luck.choice([None, -1, 10**20, 0.5, "", "text", [], {}, [1], True])
    key = luck.choice(list(inner))
    changed = value.copy()
    if luck.random() < 0.2:
        del changed[key]
    else:
        changed[key] = change_value(value[key], luck)
        if isinstance(value[key], str) and value[key][:1] in ("{", "["):  # JSON in JSON
            changed[key] = inside_json(value[key].encode(), luck).decode()
    return changed


INSIDE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "zip": inside_zip,
    "png": inside_png,
    "safetensors": inside_safetensors,
    "json": inside_json,
}
