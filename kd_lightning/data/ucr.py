"""Time series of the UCR and UEA archives: https://www.timeseriesclassification.com.

A problem is a folder ``<Name>`` with the files ``<Name>_TRAIN`` and ``<Name>_TEST``, as .ts, .tsv
(the UCR archive of 2018) or .txt. Eight problems are part of the package aeon and need no download.

Dimensions: N series, C channels, L samples in time.
"""

import importlib.util
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.folders import contents

Row = tuple[int, str, list[list[str]]]  # line number, label, values of each channel as text


class UCR(ClassificationData):
    """One problem of the archives. The test part is that of the archive.

    Args:
        name: name of the problem and of its folder.
        length: all series are resampled to this length; None: that of the longest training series.
        download: whether aeon downloads the problem into ``root`` if it is missing.
    """

    def __init__(
        self, *, name: str, length: int | None = None, download: bool = False, **common
    ) -> None:
        super().__init__(**common)
        if length is not None and length < 2:
            raise UserError(f"data.length must be 2 or more, got {length}")
        if download and self.root is None:
            raise UserError("data.download=true needs a folder to download into (data.root=…)")
        self.name = name
        self.length = length
        self.download = download

    def prepare_data(self) -> None:
        if self.download:
            download_problem(self.name, self.root)

    def load(self) -> Parts:
        folder = aeon_folder() if self.root is None else self.root
        train, test = (read_part(path) for path in problem_files(folder, self.name))
        channels = {series.shape[0] for series in train[0] + test[0]}
        if len(channels) > 1:
            raise UserError(
                f"every series of {self.name} must have the same channels, they have "
                f"{' or '.join(map(str, sorted(channels)))} (data.root=…)"
            )
        length = self.length or max(series.shape[1] for series in train[0])
        (train_y, test_y), class_names = encode_labels(train[1], test[1])
        return Parts(
            train=Samples(resample(train[0], length), train_y),
            test=Samples(resample(test[0], length), test_y),
            class_names=class_names,
            test_is="the archive's own test part",
        )


def aeon_folder() -> Path:
    """The folder of problems in aeon. aeon is located but not imported, as its import is slow."""
    spec = importlib.util.find_spec("aeon")
    if spec is None:
        raise UserError(
            "UCR problems are read from the package aeon or from your own folder: install "
            "kd_lightning[ucr], or set data.root=… with data.download=false"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def download_problem(name: str, folder: Path) -> None:
    """Downloads a problem with aeon into ``folder/name`` if it is missing, one process at a time.

    Raises:
        UserError: aeon is not installed, there is no such problem, or the download failed.
    """
    aeon_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            if name not in list_problems(folder):
                from aeon.datasets import load_classification

                load_classification(name, extract_path=str(folder))
    except (OSError, ValueError, HTTPException, BadZipFile) as error:
        raise UserError(
            f"the UCR/UEA problem '{name}' could not be downloaded: {error} (data.name=…)"
        ) from error


def part_file(folder: Path, name: str, part: str) -> Path | None:
    """The file of a part ("TRAIN" or "TEST") in the first format that exists."""
    paths = (folder / name / f"{name}_{part}{suffix}" for suffix in READERS)
    return next((path for path in paths if path.is_file()), None)


def list_problems(folder: Path) -> list[str]:
    """The names of the problems in ``folder``."""
    names = sorted(path.name for path in folder.glob("*/"))
    return [name for name in names if all(part_file(folder, name, p) for p in ("TRAIN", "TEST"))]


def problem_files(folder: Path, name: str) -> tuple[Path, Path]:
    """The training and the test file of a problem; raises ``UserError`` if they do not exist."""
    names = list_problems(folder)
    if name in names:
        return part_file(folder, name, "TRAIN"), part_file(folder, name, "TEST")
    expected = f"{name}/{name}_TRAIN and {name}_TEST as .ts, .tsv or .txt"
    if not names:
        raise UserError(f"expected {expected}, found {contents(folder)} (data.root=…)")
    raise UserError(
        f"no UCR/UEA problem '{name}' in {folder}: expected {expected}, found the problems "
        f"{', '.join(names[:12])}{', …' if len(names) > 12 else ''} "
        "(data.name=…, data.root=…, or data.download=true with data.root=…)"
    )


def read_part(path: Path) -> tuple[list[Float[Tensor, "C _"]], list[str]]:
    """The series of a file, each with its own length, and their labels as text."""
    series, labels = [], []
    for number, label, channels in READERS[path.suffix](path):
        try:
            values = np.array(channels, dtype=np.float32)
        except ValueError:
            raise UserError(
                f"{path}, line {number}: a series must hold numbers and have channels of equal "
                "length (data.root=…)"
            ) from None
        series.append(trim_padding(torch.from_numpy(values), f"{path}, line {number}"))
        labels.append(label)
    if not series:
        raise UserError(f"{path} has no series (data.root=…)")
    return series, labels


def read_ts(path: Path) -> Iterator[Row]:
    """A .ts file: a header up to ``@data``, then lines ``1,2,…:3,4,…:label`` of two channels."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    tags = [line.lower().split() if line.startswith("@") else [] for line in lines]
    if ["@data"] not in tags:
        raise UserError(f"{path} is not a .ts file, it has no line @data (data.root=…)")
    start = tags.index(["@data"]) + 1
    header = {tag[0]: tag[1] for tag in tags[:start] if len(tag) > 1}
    if header.get("@classlabel") != "true":
        raise UserError(
            f"{path} is not a classification problem: no @classLabel true (data.name=…)"
        )
    if header.get("@timestamps") == "true":
        raise UserError(f"{path} has time stamps, which are not supported (data.name=…)")
    for number, line in enumerate(lines[start:], start + 1):
        if line.strip():
            *channels, label = line.strip().replace("?", "nan").split(":")
            yield number, label, [channel.split(",") for channel in channels]


def read_table(path: Path) -> Iterator[Row]:
    """A .tsv or .txt file: each line is the label and then a series of one channel."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            label, *values = line.replace(",", " ").split()
            yield number, label, [values]


READERS = {".ts": read_ts, ".tsv": read_table, ".txt": read_table}


def trim_padding(series: Float[Tensor, "C _"], where: str) -> Float[Tensor, "C _"]:
    """Removes the NaN at the end of a series, with which the archives pad shorter series.

    Raises:
        UserError: there is NaN elsewhere, which must not be filled in silently, or no value at all.
    """
    present = (~series.isnan()).any(0).nonzero().flatten()
    if len(present) == 0:
        raise UserError(f"{where}: a series without a value (data.root=…)")
    series = series[:, : int(present[-1]) + 1]
    if series.isnan().any():
        raise UserError(
            f"{where}: values are missing inside a series, fill them in first (data.root=…)"
        )
    return series


def resample(series: list[Float[Tensor, "C _"]], length: int) -> Float[Tensor, "N C {length}"]:
    """Resamples series to one length by linear interpolation, each channel separately.

    The first and the last value are kept. A series that already has this length is unchanged. Time
    is stretched, so classes that differ only in duration can no longer be told apart.
    """
    return torch.cat(
        [F.interpolate(s[None], length, mode="linear", align_corners=True) for s in series]
    )


def encode_labels(*parts: list[str]) -> tuple[list[Tensor], list[str]]:
    """Converts labels of several parts to class indices; also returns the class names.

    Classes are in numeric order if all labels are numbers ("2" before "10"; "1.0" equals "1"),
    otherwise in alphabetical order.
    """
    try:
        parts = [[f"{float(label):.15g}" for label in part] for part in parts]
        names = sorted(set().union(*parts), key=float)
    except ValueError:
        names = sorted(set().union(*parts))
    index = {name: i for i, name in enumerate(names)}
    return [torch.tensor([index[label] for label in part]) for part in parts], names
