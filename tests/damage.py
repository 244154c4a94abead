"""What a disk, a copy program or a person does to a file."""

from collections.abc import Callable
from pathlib import Path


def flip(path: Path, place: int) -> None:
    """Changes one bit of one byte."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one flipped bit": lambda path: flip(path, path.stat().st_size // 2),
    "another text": lambda path: path.write_text("hello"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00" * 20),
    "missing": lambda path: path.unlink(),
}
