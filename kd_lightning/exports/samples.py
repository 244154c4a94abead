"""The samples that an export is checked and quantized with.

Dimensions: N samples.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import stream
from kd_lightning.data.arrays import KEY, to_x
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.array_labels import as_texts
from kd_lightning.data.loading.decoding import read_rgb
from kd_lightning.data.loading.image_search import image_paths
from kd_lightning.data.loading.npz_files import is_npz, read_npz
from kd_lightning.data.loading.part_loaders import Part
from kd_lightning.exports.parity import CheckedSamples
from kd_lightning.students.load import Student

NOISE = 64  # samples of random numbers


def of_part(data: ClassificationData, part: Part, limit: int) -> CheckedSamples:
    """At most ``limit`` samples of a part, evenly spaced and without augmentation."""
    samples = data.parts[part]
    chosen = spread(len(samples), limit)
    some = copy.copy(data)
    some.parts = {"test": samples.subset(chosen)}  # as test: train would be augmented
    batches = list(some.loader("test"))
    count = (
        f"{len(chosen)} of {len(samples)}" if len(chosen) < len(samples) else f"all {len(chosen)}"
    )
    x, y = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    return CheckedSamples(x, y, f"{count} {part} samples of the run")


def spread(count: int, limit: int) -> Int[Tensor, " N"]:
    """At most ``limit`` indices of ``count``, evenly spaced: samples are often sorted by class."""
    return torch.arange(min(count, limit)) * count // min(count, limit)


def of_path(
    path: Path,
    shape: Sequence[int],
    class_names: Sequence[str],
    read: Callable[[Path], Tensor],
    option: str,
    limit: int,
) -> CheckedSamples:
    """At most ``limit`` samples of a folder of images, or of an .npz file with x and maybe y.

    Args:
        shape: of one sample, as the student takes it.
        class_names: of the student; a label is a name, or an index of it.
        read: an image file -> an image of this shape; see ``image_reader``.
        option: of the command line, for messages.

    Raises:
        UserError: there are none, or they have another shape.
    """
    if path.is_dir():
        x, y = read_images(path, read, option, limit), None
    elif is_npz(path):
        x, y = read_arrays(path, class_names, option, limit)
    else:
        raise UserError(f"{option} must be a folder of images or an .npz file, got {path}")
    if tuple(x.shape[1:]) != tuple(shape):
        raise UserError(
            f"{option} {path} has samples of shape {tuple(x.shape[1:])}, the student takes "
            f"{tuple(shape)}"
        )
    return CheckedSamples(x, y, f"{len(x)} samples of {path.name}")


def image_reader(student: Student) -> Callable[[Path], Tensor]:
    """Reads an image file as the student's val and test parts were read."""
    transform, exif = student.transform(), bool(student.info["input"]["exif"])
    return lambda path: transform(read_rgb(path, exif=exif))


def read_images(folder: Path, read: Callable[[Path], Tensor], option: str, limit: int) -> Tensor:
    paths = image_paths(folder)
    if not paths:
        raise UserError(f"there is no image in {folder} ({option} …)")
    return torch.stack([read(paths[i]) for i in spread(len(paths), limit).tolist()])


def read_arrays(
    path: Path, class_names: Sequence[str], option: str, limit: int
) -> tuple[Tensor, Tensor | None]:
    try:
        arrays = read_npz(path, KEY)
        if "x" not in arrays:
            raise UserError(
                f"{path} must hold x, it holds {', '.join(sorted(arrays)) or 'nothing'}"
            )
        x = to_x(arrays["x"], "x")
        texts = as_texts(arrays["y"], "y", "integers or names") if "y" in arrays else None
    except UserError as error:  # of data=arrays, which has another key
        raise UserError(str(error).replace("data.root=…", f"{option} …")) from error
    if texts is not None and len(texts) != len(x):
        raise UserError(f"{path} has {len(x)} samples and {len(texts)} labels ({option} …)")
    chosen = spread(len(x), limit)
    y = None if texts is None else labels_of(texts, class_names, path, option)[chosen]
    return x[chosen], y


def labels_of(
    texts: Sequence[str], class_names: Sequence[str], path: Path, option: str
) -> Int[Tensor, " N"]:
    """Class indices of labels that are all names, or all indices from 0."""
    for known in (list(class_names), [str(i) for i in range(len(class_names))]):
        if set(texts) <= set(known):
            return torch.tensor([known.index(text) for text in texts])
    odd = next(text for text in texts if text not in class_names)
    raise UserError(f"{path} has the label '{odd}', which is no class of the student ({option} …)")


def noise(shape: Sequence[int], dtype: torch.dtype) -> CheckedSamples:
    """Random images, or series of a normal distribution."""
    generator, size = stream("export", "noise"), (NOISE, *shape)
    if dtype == torch.uint8:
        x = torch.randint(0, 256, size, generator=generator, dtype=dtype)
    elif len(shape) == 3:
        x = torch.rand(size, generator=generator)
    else:
        x = torch.randn(size, generator=generator)
    return CheckedSamples(x, None, f"{NOISE} samples of random noise", is_noise=True)
