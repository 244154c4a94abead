"""Image files packed into large chunks, by litdata, so that they can be read from elsewhere.

A chunk is a file of some 64 MB, in a folder or behind an address such as ``s3://bucket/images``. An
image is read by itself, wherever it lies: of a chunk in a folder its bytes are mapped, of one
behind an address they are asked for. So the order is ours, and nothing is kept on the disk.
"""

import functools
import os
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from kd_lightning.errors import UserError


class Packed(NamedTuple):
    """An image file in a folder of chunks.

    Attributes:
        folder: or its address.
        row: its place among the folder's images.
        name: its class's folder and its own name.
        size: bytes.
    """

    folder: str
    row: int
    name: str
    size: int

    def open(self) -> BytesIO:
        """The file's content.

        Raises:
            OSError: it cannot be read.
        """
        content = bytes(opened(self.folder, os.getpid())[self.row])
        if len(content) != self.size:
            raise OSError(f"{self.name} of {self.folder} has {len(content)} bytes of {self.size}")
        return BytesIO(content)


def known_by(file: Path | Packed) -> str:
    """What a file is known by in a fingerprint: the same, packed or not."""
    if isinstance(file, Packed):
        return f"{file.name} {file.size}"
    return f"{file.parent.name}/{file.name} {file.stat().st_size}"


def check_litdata() -> None:
    """Raises ``UserError`` where litdata is not installed."""
    if find_spec("litdata") is None:
        raise UserError(
            "packed images are written and read by litdata: install kd_lightning[stream] "
            "(data=streamed, or prepare's format=litdata)"
        )
    # or it would ask its registry for a newer version whenever a folder is opened
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")


@functools.cache
def opened(folder: str, process: int) -> Any:
    """litdata's reader of a folder of chunks, in this process: a fork must not share its
    connections.
    """
    check_litdata()
    from litdata import StreamingDataset

    return StreamingDataset(folder)


def download(address: str, name: str, into: Path) -> Path:
    """A file that lies behind an address, by litdata's own means."""
    check_litdata()
    from litdata.streaming.downloader import get_downloader

    path = into / name
    get_downloader(address, str(into), []).download_file(f"{address}/{name}", str(path))
    return path
