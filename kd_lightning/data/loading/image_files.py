"""The base class of data sets of image files, and their tools: find, label and decode images.

The files are in an image tree ``<part>/<class>/…``: each folder of a part is a class, and each
image in it, at any depth, is a sample. Names that begin with a dot and files with other extensions
are ignored.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.batches import BadImage, Samples
from kd_lightning.data.loading.folders import contents

try:  # kd_lightning[jpeg]
    import simplejpeg
except ImportError:
    simplejpeg = None

JPEG = b"\xff\xd8\xff"  # the first bytes of every JPEG file
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # in lower or upper case
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1], the usual normalisation of photographs
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFiles(ClassificationData):
    """Image files that are decoded to RGB when a batch needs them.

    Orientation tags (EXIF) are ignored, as in all published results on ImageNet.

    Args:
        image_size: side of the images that the networks get.
        crop_fraction: for val and test, and for train without augmentation, the short side is
            resized to ``image_size / crop_fraction``, then the centre is cropped to ``image_size``.
        on_bad_image: what happens if a file cannot be decoded: ``error``, or ``skip``, which leaves
            it out of its batch with a warning.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        crop_fraction: float = 0.875,
        on_bad_image: str = "error",
        **common,
    ) -> None:
        super().__init__(**common)
        check_sizes(image_size, crop_fraction)
        if on_bad_image not in ("error", "skip"):
            raise unknown("choice", on_bad_image, ["error", "skip"], "data.on_bad_image")
        self.image_size = image_size
        self.crop_fraction = crop_fraction
        self.skip_bad = on_bad_image == "skip"

    @staticmethod
    def decode(path: Path) -> UInt8[Tensor, "3 H W"]:
        return read_rgb(path)

    def eval_transform(self) -> Callable[[Tensor], Tensor]:
        resize = v2.Resize(short_side(self.image_size, self.crop_fraction), antialias=True)
        return v2.Compose([resize, v2.CenterCrop(self.image_size)])

    def _measure(self, train: Samples) -> None:
        self.channels, self.size = 3, self.image_size
        self.mean, self.std = list(IMAGENET_MEAN), list(IMAGENET_STD)
        photo = (3, 2 * self.image_size, 2 * self.image_size + 1)
        self._check_augmentation(torch.zeros(photo, dtype=torch.uint8))


def check_sizes(image_size: int, crop_fraction: float) -> None:
    """Raises ``UserError`` for an image size or a crop fraction out of range."""
    if image_size < 1:
        raise UserError(f"data.image_size must be >= 1, got {image_size}")
    if not 0 < crop_fraction <= 1:
        raise UserError(f"data.crop_fraction must be in (0, 1], got {crop_fraction}")


def short_side(image_size: int, crop_fraction: float) -> int:
    """The short side to which images are resized before the centre crop of val and test."""
    return round(image_size / crop_fraction)


def read_rgb(path: Path) -> UInt8[Tensor, "3 H W"]:
    """Decodes an image file of any colour mode to RGB; transparency is dropped.

    A JPEG is decoded by simplejpeg if the result equals PIL's, anything else by PIL.
    ``torchvision.io.decode_image`` is not used: it is deprecated, reads fewer formats, and returns
    the same values for a JPEG.

    Raises:
        BadImage: the file is missing, truncated, or not an image.
    """
    return read_rgb_from(path, path)


def read_rgb_from(source: Path | BytesIO, name: Path | str) -> UInt8[Tensor, "3 H W"]:
    """``read_rgb`` for a file or its content; ``name`` is the name in error messages."""
    if (pixels := read_jpeg(source)) is not None:
        return pixels
    try:
        with Image.open(source) as image:
            if image.mode.startswith("I"):  # 16-bit grey: PIL would clip it at 255
                image = image.point(lambda value: value * (1 / 256)).convert("L")
            return v2.functional.pil_to_tensor(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace(repr(source), str(name))
        raise BadImage(
            f"{name} must be an image: {reason} (repair it, or data.on_bad_image=skip)"
        ) from None


def read_jpeg(source: Path | BytesIO) -> UInt8[Tensor, "3 H W"] | None:
    """Decodes a JPEG to RGB with simplejpeg: the same pixels as PIL, faster (benchmarks.loading).

    Returns None if PIL must decode the file: simplejpeg is not installed, the file is damaged or in
    another format, its mode is CMYK (which simplejpeg converts differently), or PIL would warn that
    it is too large.
    """
    if simplejpeg is None:
        return None
    try:
        with source.open("rb") if isinstance(source, Path) else BytesIO(source.getvalue()) as file:
            first_bytes = file.read(len(JPEG))
            if first_bytes != JPEG:
                return None
            data = first_bytes + file.read()
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "RGB", "Gray") or height * width > Image.MAX_IMAGE_PIXELS:
            return None
        return torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1)
    except (OSError, ValueError):
        return None


def class_folders(*parts: Path) -> dict[str, list[Path]]:
    """The class folders of all ``parts`` together: class name -> folders, sorted by name.

    Raises:
        UserError: there is no class folder.
    """
    folders: dict[str, list[Path]] = {}
    for part in parts:
        with os.scandir(part) as entries:
            for entry in entries:
                if entry.is_dir() and not entry.name.startswith("."):
                    folders.setdefault(entry.name, []).append(Path(entry.path))
    if not folders:
        raise UserError(
            f"expected a folder for each class, found {contents(parts[0])} (data.root=…)"
        )
    return dict(sorted(folders.items()))


def label_images(
    folders: Mapping[str, Sequence[Path]], classes: Sequence[str], part: str, keys: str
) -> Samples:
    """The images of ``classes`` with their labels, sorted by class and path.

    A label is the index of the class in ``classes``.

    Args:
        folders: class name -> its folders; classes that are not in ``classes`` are ignored.
        part: name of the part, for error messages.
        keys: settings that the user can change, for error messages.

    Raises:
        UserError: a class has no folder.
    """
    missing = [name for name in classes if name not in folders]
    if missing:
        raise UserError(
            f"the {part} part lacks {len(missing)} of {len(classes)} classes: {shorten(missing)} "
            f"({keys})"
        )
    paths = [[p for folder in folders[name] for p in image_paths(folder)] for name in classes]
    counts = torch.tensor([len(of_class) for of_class in paths])
    y = torch.arange(len(classes)).repeat_interleave(counts)
    return Samples([path for of_class in paths for path in of_class], y)


def check_no_extra_classes(
    folders: Mapping[str, Sequence[Path]], classes: Sequence[str], part: str
) -> None:
    """Raises ``UserError`` if a part has classes that train does not have."""
    extra = sorted(set(folders) - set(classes))
    if extra:
        raise UserError(
            f"the {part} part has {len(extra)} classes that train does not have: "
            f"{shorten(extra)} (data.root=…)"
        )


def shorten(names: Sequence[str]) -> str:
    """The first five of many names, for messages."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def image_paths(folder: Path) -> list[Path]:
    """The image files in ``folder``, at any depth, sorted."""
    images, pending = [], [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    pending.append(entry.path)
                elif entry.name.lower().endswith(EXTENSIONS):
                    images.append(entry.path)
    return [Path(path) for path in sorted(images)]


def imagenet_rows(classes: Sequence[str]) -> list[int] | None:
    """The index of each class in ImageNet-1k; None if one of them is not a wnid of ImageNet-1k.

    ImageNet-1k's classes are sorted by wnid, as are the rows of every pretrained head.
    """
    if not all(re.fullmatch(r"n\d{8}", name) for name in classes):
        return None
    from timm.data import ImageNetInfo  # this import takes a second

    wnids = ImageNetInfo().label_names()
    assert wnids == sorted(wnids)
    row = {wnid: i for i, wnid in enumerate(wnids)}
    return [row[name] for name in classes] if row.keys() >= set(classes) else None


def download(dataset: Callable, root: Path | None) -> None:
    """Downloads a torchvision data set into ``root``, one process at a time.

    Raises:
        UserError: ``root`` is not set, or the download failed.
    """
    if root is None:
        raise UserError(
            "data.download=true needs a folder to download into, got none (data.root=…)"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{dataset.__name__}.lock"):
            dataset(root, download=True)  # does nothing if all files exist
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torchvision's message has several lines
        raise UserError(
            f"the download of {dataset.__name__} into {root} failed: {reason} (put the files "
            "there, or set data.root=…)"
        ) from None
