"""Image files packed into large chunks, by litdata, so that they can be read from elsewhere.

A chunk is a file of some 64 MB, in a folder or behind an address such as ``s3://bucket/images``. An
image is read by itself, wherever it lies: of a chunk in a folder its bytes are mapped, of one
behind an address they are asked for. So the order is ours, and nothing is kept on the disk.
"""

import functools
import json
import os
import time
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from kd_lightning.base.errors import UserError

PAUSES = (0, 0.5, 2)  # seconds before each attempt to read an image
# What an index may say of an item's structure: nothing, or that it is a single value.
BYTES = (None, [1, {"type": None, "context": None, "children_spec": []}])


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
        """The file's content, asked for again after a pause where it does not come, or not whole.

        Raises:
            UserError: it cannot be read. What can be read and is no image is a matter of decoding.
        """
        why = ""
        for pause in PAUSES:
            time.sleep(pause)
            try:
                content = bytes(opened(self.folder, os.getpid())[self.row])
            except UserError:
                raise
            except Exception as error:  # of whatever kind the storage's own library has
                why = " ".join(str(error).split()) or type(error).__name__
            else:
                if len(content) == self.size:
                    return BytesIO(content)
                why = f"{len(content)} bytes of {self.size}"
        raise UserError(f"{self.name} of {self.folder} cannot be read: {why} (data.root=…)")


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
    # whatever LITDATA_CHECK_UPDATES says: a folder is opened without asking for a newer version
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")


@functools.cache
def opened(folder: str, process: int) -> Any:
    """litdata's reader of a folder of chunks, in this process: a fork must not share its
    connections.

    Raises:
        UserError: the folder holds something else than bytes.
    """
    check_litdata()
    from litdata import StreamingDataset

    reader = StreamingDataset(folder)
    # the very file that the reader goes by, which has done nothing by it yet
    check_bytes(Path(reader.input_dir.path) / "index.json", folder)
    return reader


def check_bytes(index: Path, folder: str) -> None:
    """Raises ``UserError`` where an index asks for more than bytes: it comes from where the chunks
    do, and what it names would be unpickled or imported.
    """
    says = json.loads(index.read_text())
    config = says.get("config") or {}
    spec = json.loads(config.get("data_spec") or "null")
    if "shards" in says or config.get("data_format") != ["bytes"] or spec not in BYTES:
        raise UserError(
            f"{folder} must hold files as bytes, its index.json says {config.get('data_format')}: "
            "pack the tree by python -m kd_lightning.prepare format=litdata (data.root=…)"
        )


def download(address: str, name: str, into: Path) -> Path:
    """A file that lies behind an address, by litdata's own means."""
    check_litdata()
    from litdata.streaming.downloader import get_downloader

    path = into / name
    get_downloader(address, str(into), []).download_file(f"{address}/{name}", str(path))
    return path
