"""``PackedFile``: an image file inside a litdata chunk, in a local folder or in remote storage.

``data/preparation/pack.py`` writes the chunks and ``data=streamed`` (``data/streamed.py``) reads
them. A chunk is a file of about 64 MB, in a folder or at an address such as ``s3://bucket/images``.
Each image is read separately: from a local chunk by memory mapping, from a remote chunk by a range
request. So images are read in our own order, and no remote chunk is stored on the local disk.
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
from kd_lightning.base.reading import reading

PAUSES = (0, 0.5, 2)  # seconds to wait before each attempt to read an image
# Allowed values of data_spec in an index.json: none, or a single value without structure.
PLAIN_SPECS = (None, [1, {"type": None, "context": None, "children_spec": []}])


class PackedFile(NamedTuple):
    """An image file in a folder of chunks.

    Attributes:
        folder: path or address of the folder.
        row: index of the image in the folder.
        name: name of the class folder and of the file, ``<class>/<file>``.
        size: size in bytes.
    """

    folder: str
    row: int
    name: str
    size: int

    def open(self) -> BytesIO:
        """Reads the content of the file; a failed or incomplete read is repeated after a pause.

        Raises:
            UserError: the file cannot be read. Whether it is an image is not checked here.
        """
        reason = ""
        for pause in PAUSES:
            time.sleep(pause)
            try:
                content = bytes(open_reader(self.folder, os.getpid())[self.row])
            except UserError:
                raise
            except Exception as error:  # each storage library has its own kinds of errors
                reason = " ".join(str(error).split()) or type(error).__name__
            else:
                if len(content) == self.size:
                    return BytesIO(content)
                reason = f"{len(content)} bytes of {self.size}"
        raise UserError(f"{self.name} of {self.folder} cannot be read: {reason} (data.root=…)")


def file_id(file: Path | PackedFile) -> str:
    """The text that identifies a file in a fingerprint; it is the same if the file is packed."""
    if isinstance(file, PackedFile):
        return f"{file.name} {file.size}"
    return f"{file.parent.name}/{file.name} {file.stat().st_size}"


def check_litdata() -> None:
    """Raises ``UserError`` if litdata is not installed."""
    if find_spec("litdata") is None:
        raise UserError(
            "packed images need litdata: install kd_lightning[stream] (for data=streamed and for "
            "kd_lightning.prepare with format=litdata)"
        )
    # litdata must not look for a newer version of itself, whatever LITDATA_CHECK_UPDATES is
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")


@functools.cache
def open_reader(folder: str, process: int) -> Any:
    """litdata's reader of a folder of chunks, one for each process.

    Args:
        process: id of the process, because forked processes must not share network connections.

    Raises:
        UserError: the chunks hold something other than bytes.
    """
    check_litdata()
    from litdata import StreamingDataset

    reader = StreamingDataset(folder)
    # check the index file that the reader will use, before it uses it
    check_only_bytes(Path(reader.input_dir.path) / "index.json", folder)
    return reader


def check_only_bytes(path: Path, folder: str) -> None:
    """Raises ``UserError`` if an index describes anything other than bytes.

    The index comes from the same place as the chunks, which may be untrusted, and litdata would
    unpickle or import what the index names.
    """
    with reading(path, "data.root", "pack the images again"):
        index = json.loads(path.read_text())
        config = index.get("config") or {}
        spec = json.loads(config.get("data_spec") or "null")
    if "shards" in index or config.get("data_format") != ["bytes"] or spec not in PLAIN_SPECS:
        raise UserError(
            f"{folder} must hold files as bytes, its index.json says {config.get('data_format')}: "
            "pack the images with python -m kd_lightning.prepare format=litdata (data.root=…)"
        )


def download(address: str, name: str, into: Path) -> Path:
    """Downloads the file ``name`` from ``address`` into the folder ``into``, with litdata."""
    check_litdata()
    from litdata.streaming.downloader import get_downloader

    path = into / name
    get_downloader(address, str(into), []).download_file(f"{address}/{name}", str(path))
    return path
