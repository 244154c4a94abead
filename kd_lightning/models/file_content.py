"""What a file is by its first bytes, whatever its name says: weights, a photo, text, or damaged."""

import codecs
import json
import zipfile
from pathlib import Path

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import format_bytes

EXPECTED = "expected a file of torch.save or safetensors"
HEAD = 512  # bytes that are looked at
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
OF_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the files of torch before 1.6 begin so
LENGTH = 8  # bytes at the start of a safetensors file: the length of its header, little-endian
LONGEST_HEADER = 100_000_000  # the format's own limit
# What people give by mistake, by how it begins
KINDS = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file, as Keras writes it,",
    b"GGUF": "a GGUF file",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip file, which must be unpacked first,",
    b"BZh": "a bzip2 file, which must be unpacked first,",
    b"\xfd7zXZ": "an xz file, which must be unpacked first,",
}


def check_content(path: Path, key: str) -> None:
    """Raises ``UserError`` for a file that is empty or is no file of weights.

    Args:
        key: the configuration key of the file, for the message.
    """
    try:
        head = _head(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror} ({key}=…)") from error
    if not head:
        raise UserError(f"{path} is empty: {EXPECTED} ({key}=…)")
    if is_safetensors(path):
        return
    kind = _other_kind(path, head)
    if kind is not None:
        raise UserError(
            f"{path} is {kind} and not a file of weights ({_size(path)}): {EXPECTED} ({key}=…)"
        )
    if not head.startswith((ZIP, PICKLE)):
        raise UserError(
            f"{path} is damaged or not a file of weights ({_size(path)}, it begins with the bytes "
            f"{head[:8].hex(' ')}): {EXPECTED} ({key}=…)"
        )


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as a safetensors file does, though its end may be missing."""
    head = _head(path)
    length = int.from_bytes(head[:LENGTH], "little")
    return head[LENGTH : LENGTH + 1] == b"{" and 1 < length <= LONGEST_HEADER


def unreadable(path: Path, key: str) -> UserError:
    """The error for a file that begins as a file of weights and cannot be read to its end."""
    head = _head(path)
    is_pickle = head.startswith(PICKLE) and not is_safetensors(path)
    if is_pickle and head[: len(OF_TORCH)] != OF_TORCH[: len(head)]:
        return UserError(
            f"{path} is a pickle that torch.save has not written: save the net's state_dict() with "
            f"torch.save and give that file ({key}=…)"
        )
    complete = _complete_size(path) if is_safetensors(path) else None
    is_cut = complete is not None and complete > path.stat().st_size
    found = _size(path) + (f" of {format_bytes(complete)}" if is_cut else "")
    return UserError(
        f"{path} is damaged or cut short ({found}): copy or download it again ({key}=…)"
    )


def _size(path: Path) -> str:
    size = path.stat().st_size
    return format_bytes(size) if size >= 1000 else f"{size} bytes"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _other_kind(path: Path, head: bytes) -> str | None:
    """What a file is, in words; None: weights, damaged weights, or unknown."""
    for start, kind in KINDS.items():
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    if head[257:262] == b"ustar":
        return "a tar archive, which must be unpacked first,"
    if head.startswith(ZIP):
        return _kind_of_zip(path)
    return _kind_of_text(head)


def _kind_of_zip(path: Path) -> str | None:
    """What a ZIP file is in words; None: one of torch.save, or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return None
    inside = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in inside:
        return "a TorchScript program, whose net's state_dict() must be saved first,"
    if "data.pkl" in inside:
        return None
    some = ", ".join(names[:2]) + (", …" if len(names) > 2 else "")
    return f"a ZIP file with {some or 'nothing'} in it"


def _kind_of_text(head: bytes) -> str | None:
    """What a text is in words; None: it is no text."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return None
    if not all(character.isprintable() or character.isspace() for character in text):
        return None
    if text.startswith("version https://git-lfs"):
        return "a pointer of Git LFS, whose file `git lfs pull` fetches,"
    if text.lstrip().lower().startswith(("<!doctype html", "<html")):
        return "a web page (HTML)"
    return "a text file"


def _complete_size(path: Path) -> int | None:
    """How long a safetensors file says it is; None if its header is not complete."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH), "little")
        try:
            header = json.loads(file.read(length))
            ends = [one["data_offsets"][1] for name, one in header.items() if name[:2] != "__"]
            return LENGTH + length + max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
