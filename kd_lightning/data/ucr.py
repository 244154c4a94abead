"""Time series of the UCR and UEA archives: https://www.timeseriesclassification.com.

A problem is a folder ``<Name>`` with the files ``<Name>_TRAIN`` and ``<Name>_TEST``, as .ts, .csv,
.txt or .tsv (the UCR archive of 2018). Eight problems are part of the package aeon and need no
download.

Dimensions: N series, C channels, L samples in time.
"""

import importlib.util
import re
from dataclasses import dataclass
from decimal import Decimal
from http.client import HTTPException
from pathlib import Path
from typing import Annotated
from zipfile import BadZipFile

import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import check_name
from kd_lightning.base.ranges import Range
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.cells import is_missing
from kd_lightning.data.loading.classes import class_notes, sorted_names
from kd_lightning.data.loading.folders import contents
from kd_lightning.data.loading.series_text import read_table, read_ts, to_numbers
from kd_lightning.data.loading.splits import stratified_resample


class UCR(ClassificationData):
    """One problem of the archives. The test part is that of the archive, or of a resample of it.

    Args:
        name: name of the problem and of its folder.
        length: all series are resampled to this length; None: that of the longest training series.
        download: whether aeon downloads the problem into ``root`` if it is missing.
        resample: 0: train and test are those of the archive; n > 0: both are drawn anew from all
            its series, as many of each class as before, with n as the seed of aeon's draw.
    """

    def __init__(
        self,
        *,
        name: str,
        length: int | None = None,
        download: bool = False,
        resample: Annotated[int, Range(least=0, most=2**32 - 1)] = 0,
        **common,
    ) -> None:
        super().__init__(**common)
        if length is not None and length < 2:
            raise UserError(f"data.length must be 2 or more, got {length}")
        if download and self.root is None:
            raise UserError("data.download=true needs a folder to download into (data.root=…)")
        check_name(name, "data.name")
        self.name = name
        self.length = length
        self.download = download
        self.resample = resample

    def prepare_data(self) -> None:
        if self.download:
            download_problem(self.name, self.root)

    def load(self) -> Parts:
        folder = aeon_folder() if self.root is None else self.root
        train, test = (read_part(path) for path in problem_files(folder, self.name))
        check_channels(train, test)
        length = self.length or max(series.shape[1] for series in train.series)
        (train_y, test_y), class_names = encode_labels(train.labels, test.labels)
        check_classes(test, test_y, train_y)
        self.notes += resampling_notes(train.series + test.series, length)
        x, y = to_length(train.series + test.series, length), torch.cat([train_y, test_y])
        self.notes += class_notes(class_names, y)
        kept, tested = torch.arange(len(y)).split([len(train_y), len(test_y)])
        test_is = "the archive's own test part"
        if self.resample:
            names = [[class_names[label] for label in part] for part in (train_y, test_y)]
            kept, tested = stratified_resample(*names, self.resample)
            test_is = f"resample {self.resample} of the archive's train and test"
        return Parts(
            train=Samples(x[kept], y[kept]),
            test=Samples(x[tested], y[tested]),
            class_names=class_names,
            test_is=test_is,
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
    expected = f"{name}/{name}_TRAIN and {name}_TEST as .ts, .tsv, .csv or .txt"
    if not names:
        raise UserError(f"expected {expected}, found {contents(folder)} (data.root=…)")
    raise UserError(
        f"no UCR/UEA problem '{name}' in {folder}: expected {expected}, found the problems "
        f"{', '.join(names[:12])}{', …' if len(names) > 12 else ''} "
        "(data.name=…, data.root=…, or data.download=true with data.root=…)"
    )


@dataclass(frozen=True)
class Part:
    """The series of one file.

    Attributes:
        series: (C, L) each, with its own length.
        labels: of each series, as text.
        lines: of the file, from 1, in which each series stands.
    """

    path: Path
    series: list[Float[Tensor, "C _"]]
    labels: list[str]
    lines: list[int]

    def where(self, index: int) -> str:
        """The file and the line of a series, for errors."""
        return f"{self.path}, line {self.lines[index]}"


def read_part(path: Path) -> Part:
    """The series of a file, each with its own length, and their labels as text."""
    part = Part(path, [], [], [])
    for number, label, channels in READERS[path.suffix](path):
        where = f"{path}, line {number}"
        if is_missing(label):
            raise UserError(f"{where}: a series must have a label, got '{label}' (data.root=…)")
        values = torch.from_numpy(to_numbers(channels, where))
        part.series.append(trim_padding(values, where))
        part.labels.append(label)
        part.lines.append(number)
    if not part.series:
        raise UserError(f"{path} has no series (data.root=…)")
    return part


READERS = {".ts": read_ts, ".tsv": read_table, ".csv": read_table, ".txt": read_table}


def check_channels(train: Part, test: Part) -> None:
    """Raises ``UserError`` for a series with other channels than the first training series."""
    expected = train.series[0].shape[0]
    for part in (train, test):
        for index, series in enumerate(part.series):
            if series.shape[0] != expected:
                raise UserError(
                    f"{part.where(index)}: every series must have the same channels, expected "
                    f"{expected} as in {train.where(0)}, got {series.shape[0]} (data.root=…)"
                )


def check_classes(test: Part, test_y: Tensor, train_y: Tensor) -> None:
    """Raises ``UserError`` for a test series of a class that has no training series."""
    unknown = ~torch.isin(test_y, train_y)
    if unknown.any():
        first = int(unknown.nonzero()[0])
        raise UserError(
            f"{test.where(first)}: no training series has the label '{test.labels[first]}' "
            "(data.root=…)"
        )


def resampling_notes(series: list[Float[Tensor, "C _"]], length: int) -> list[str]:
    """How many series had another length, if any had."""
    others = {one.shape[1] for one in series} - {length}
    if not others:
        return []
    count = sum(one.shape[1] in others for one in series)
    lengths = " to ".join(map(str, sorted({min(others), max(others)})))
    return [
        f"{count} of {len(series)} series had {lengths} steps and are resampled to {length} "
        "(data.length=…): their durations are lost."
    ]


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


def to_length(series: list[Float[Tensor, "C _"]], length: int) -> Float[Tensor, "N C {length}"]:
    """Brings series to one length by linear interpolation, each channel separately.

    The first and the last value are kept. A series that already has this length is unchanged. Time
    is stretched, so classes that differ only in duration can no longer be told apart.
    """
    return torch.cat(
        [F.interpolate(s[None], length, mode="linear", align_corners=True) for s in series]
    )


def encode_labels(*parts: list[str]) -> tuple[list[Tensor], list[str]]:
    """Converts labels of several parts to class indices; also returns the class names.

    Labels are compared as text, so ``01`` and ``1`` are two classes. Only where a part writes all
    its labels as decimals of whole numbers (``1.0000000e+00``, as in the archive's .txt files) are
    they those whole numbers. For the order of the classes see ``sorted_names``.
    """
    parts = [whole_numbers(part) for part in parts]
    names = sorted_names(set().union(*parts))
    index = {name: i for i, name in enumerate(names)}
    return [torch.tensor([index[label] for label in part]) for part in parts], names


def whole_numbers(labels: list[str]) -> list[str]:
    """The labels as whole numbers if all are decimals of such; else, and where two different labels
    would become one, as they are.
    """
    texts = set(labels)
    if not all(re.fullmatch(r"[-+]?\d+\.\d+(e[-+]?\d+)?", text, re.I) for text in texts):
        return labels
    numbers = {text: Decimal(text) for text in texts}
    is_whole = all(number == number.to_integral_value() for number in numbers.values())
    if not is_whole or len(set(numbers.values())) < len(texts):
        return labels
    return [f"{numbers[label]:.0f}" for label in labels]
