"""The samples to predict, and how they become batches.

A sample that cannot be read ends nothing: it has an error instead of values.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.batches import BadImage
from kd_lightning.data.loading.decoding import read_rgb
from kd_lightning.data.loading.image_search import ENDINGS, image_paths
from kd_lightning.predictions.tables import SUFFIXES, Sample, read_table, without_name
from kd_lightning.students.load import Student


@dataclass(frozen=True)
class Batch:
    """Some samples in their order.

    Attributes:
        samples: without their values.
        x: (B, C, *size), the values of those samples that have no error; None: all have one.
    """

    samples: list[Sample]
    x: Tensor | None


def find_files(inputs: Sequence[str], given: dict[str, Any]) -> list[Path]:
    """The files to read, in order: a folder becomes the images in it, sorted, at any depth.

    Args:
        inputs: files and folders, from the user.
        given: the student's ``info["input"]``.

    Raises:
        UserError: there is no such file, no image in a folder, or a file is not of the kind that
            the student takes.
    """
    files: list[Path] = []
    for word in inputs:
        path = Path(word).expanduser()
        if not path.exists():
            raise UserError(f"there is no file or folder {path}")
        check_kind(path, given)
        found = image_paths(path) if path.is_dir() else [path]
        if not found:
            raise UserError(f"there is no image ({', '.join(ENDINGS)}) in {path}")
        files += found
    return files


def check_kind(path: Path, given: dict[str, Any]) -> None:
    """Raises ``UserError`` for a file that this student cannot take."""
    suffix = path.suffix.lower()
    if given["kind"] == "image" and suffix != ".npz":
        if suffix in SUFFIXES:
            raise UserError(f"the student takes images: give image files or .npz, got {path}")
        if given["channels"] not in (1, 3):
            takes = f"images of {given['channels']} channels"
            raise UserError(f"the student takes {takes}, which image files lack: give .npz")
    if given["kind"] == "series":
        takes = f"series of {given['channels']} channels x {given['size']} values"
        if path.is_dir() or suffix not in SUFFIXES:
            raise UserError(f"the student takes {takes}: give .npz, .csv or .tsv, got {path}")
        if given["channels"] > 1 and suffix != ".npz":
            raise UserError(f"the student takes {takes}: give .npz, {path} has one channel")


def is_table(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def read_batches(
    files: Iterable[Path], student: Student, *, batch_size: int, workers: int
) -> Iterator[Batch]:
    """The samples of all files in order.

    Args:
        workers: number of processes that decode images; 0: this process does.
    """
    given, transform = student.info["input"], student.transform()
    for of_tables, group in groupby(files, key=is_table):
        if of_tables:
            samples = (s for path in group for s in read_table(path, given, transform))
            while some := list(islice(samples, batch_size)):
                yield to_batch(some)
        else:
            images = ImageSet(list(group), given["exif"], transform)
            yield from DataLoader(
                images,
                batch_size,
                num_workers=workers if len(images) > batch_size else 0,
                collate_fn=to_batch,
                generator=torch.Generator(),  # else it uses the global generator
            )


class ImageSet(Dataset):
    """Decodes image files and gives them the size that the student takes.

    Args:
        exif: whether images are turned as their orientation tag says.
        transform: of ``Student.transform``.
    """

    def __init__(
        self, files: Sequence[Path], exif: bool, transform: Callable[[Tensor], Tensor]
    ) -> None:
        self.files = files
        self.exif = exif
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Sample:
        path = self.files[number]
        try:
            return Sample(path, x=self.transform(read_rgb(path, exif=self.exif)))
        except BadImage as error:
            return Sample(path, error=f"not an image: {without_name(error.reason, path)}")


def to_batch(samples: Sequence[Sample]) -> Batch:
    values = [sample.x for sample in samples if sample.x is not None]
    if len({value.dtype for value in values}) > 1:  # files of bytes and files of values in [0, 1]
        values = [x.float() / 255 if x.dtype == torch.uint8 else x for x in values]
    places = [Sample(sample.file, sample.index, error=sample.error) for sample in samples]
    return Batch(places, torch.stack(values) if values else None)
