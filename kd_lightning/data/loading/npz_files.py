"""Arrays in .npz files. Pickled objects are refused, and checksums are compared."""

from pathlib import Path
from zipfile import ZipFile, is_zipfile

import numpy as np
from jaxtyping import Shaped

from kd_lightning.base.errors import UserError
from kd_lightning.base.reading import reading

ADVICE = "write it again with np.savez"


def read_npz(path: Path, key: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The arrays of an .npz file by name.

    Args:
        key: that names the file, for messages; "": the file has no key.

    Raises:
        UserError: the file is damaged, or holds something other than arrays of numbers or text.
    """
    arrays = {}
    end = f" ({key}=…)" if key else ""
    with reading(path, key, ADVICE), ZipFile(path) as archive:
        for name in archive.namelist():
            arrays[name.removesuffix(".npy")] = read_member(archive, name, path, end)
    return arrays


def read_member(archive: ZipFile, name: str, path: Path, end: str) -> Shaped[np.ndarray, "..."]:
    """One array. It is read to the end, for only there its checksum is known.

    Args:
        end: of the message of an error: the key that names the file.
    """
    with archive.open(name) as file:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            if "Object arrays" not in str(error):
                raise
            raise UserError(
                f"'{name.removesuffix('.npy')}' in {path} must be an array of numbers or text, but "
                "it holds Python objects: make text of them by astype(str), numbers by "
                f"astype(float), and bring samples of different lengths to one{end}"
            ) from None
        except MemoryError:
            raise UserError(
                f"'{name.removesuffix('.npy')}' in {path} needs more memory than there is{end}"
            ) from None
        if file.read(1):
            raise ValueError(f"{name} has more values than its shape says")
    return array


def received(path: Path | None) -> str:
    """What a path is that should be an .npz file."""
    if path is None:
        return "nothing"
    if path.is_dir():
        return f"{path}, which is a folder"
    if not path.exists():
        return f"{path}, which does not exist"
    if path.stat().st_size == 0:
        return f"{path}, which is empty"
    return f"{path}, which is damaged or another kind of file: {ADVICE}"


def is_npz(path: Path | None) -> bool:
    return path is not None and path.is_file() and is_zipfile(path)
