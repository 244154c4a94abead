"""What image data sets on a disk share: download, scan of a tree, decoding, one size for all.

A tree is ``<part>/<class>/…``: every folder of a part is a class, every image below it a sample.
Names that begin with a dot, and files with other endings, are passed over.
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

JPEG = b"\xff\xd8\xff"  # what every JPEG begins with
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # in any case
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of [0, 1] RGB: what nets for photographs are normalised by
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFiles(ClassificationData):
    """Images that are decoded when a batch needs them. They come as RGB, whatever the files are.

    Orientation tags (EXIF) are not applied, as in all published results on ImageNet.

    Args:
        image_size: side of what the nets get.
        crop_fraction: for val and test, and for train without augmentation, the short side becomes
            ``image_size / crop_fraction``, and the centre is cut out.
        on_bad_image: ``error``; or ``skip``: a file that cannot be decoded is left out of its
            batch, with a warning.
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
    """Raises ``UserError`` for a side that is none, or a crop that does not fit."""
    if image_size < 1:
        raise UserError(f"data.image_size must be >= 1, got {image_size}")
    if not 0 < crop_fraction <= 1:
        raise UserError(f"data.crop_fraction must be in (0, 1], got {crop_fraction}")


def short_side(image_size: int, crop_fraction: float) -> int:
    """Of an image, before the centre is cut out for val and test."""
    return round(image_size / crop_fraction)


def read_rgb(path: Path) -> UInt8[Tensor, "3 H W"]:
    """An image file as RGB, whatever its own mode; transparency is dropped.

    By simplejpeg what it decodes as PIL does, and all else by PIL: ``torchvision.io.decode_image``
    is deprecated, gives the same values of a JPEG, and reads fewer formats.

    Raises:
        BadImage: the file is missing, cut short, or no image.
    """
    return read_rgb_from(path, path)


def read_rgb_from(source: Path | BytesIO, name: Path | str) -> UInt8[Tensor, "3 H W"]:
    """As ``read_rgb``, of a file or its content; ``name`` is for the message."""
    if (pixels := read_jpeg(source)) is not None:
        return pixels
    try:
        with Image.open(source) as image:
            if image.mode.startswith("I"):  # 16-bit grey, which PIL would clip at 255
                image = image.point(lambda value: value * (1 / 256)).convert("L")
            return v2.functional.pil_to_tensor(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = str(error).replace(repr(source), str(name))
        raise BadImage(
            f"{name} must be an image: {why} (repair it, or data.on_bad_image=skip)"
        ) from None


def read_jpeg(source: Path | BytesIO) -> UInt8[Tensor, "3 H W"] | None:
    """A JPEG as RGB, with PIL's own pixels to the last bit, in less time (benchmarks.loading).

    None where simplejpeg is not installed, and for what PIL has to judge: other formats, CMYK
    (converted otherwise), images that PIL warns are too large, and files that are not sound.
    """
    if simplejpeg is None:
        return None
    try:
        with source.open("rb") if isinstance(source, Path) else BytesIO(source.getvalue()) as file:
            begins = file.read(len(JPEG))
            if begins != JPEG:
                return None
            data = begins + file.read()
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "RGB", "Gray") or height * width > Image.MAX_IMAGE_PIXELS:
            return None
        return torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1)
    except (OSError, ValueError):
        return None


def class_folders(*parts: Path) -> dict[str, list[Path]]:
    """Class name -> its folders, of all ``parts`` together, sorted by name.

    Raises:
        UserError: there is no class folder.
    """
    found: dict[str, list[Path]] = {}
    for part in parts:
        with os.scandir(part) as entries:
            for entry in entries:
                if entry.is_dir() and not entry.name.startswith("."):
                    found.setdefault(entry.name, []).append(Path(entry.path))
    if not found:
        raise UserError(
            f"expected a folder for each class, found {contents(parts[0])} (data.root=…)"
        )
    return dict(sorted(found.items()))


def labelled(
    folders: Mapping[str, Sequence[Path]], classes: Sequence[str], part: str, keys: str
) -> Samples:
    """The images of ``classes``, labelled by their place among them, sorted by class and path.

    Args:
        folders: class name -> its folders; other classes than ``classes`` are passed over.
        part, keys: for the message: what the folders are, and which keys to change.

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


def check_no_others(
    folders: Mapping[str, Sequence[Path]], classes: Sequence[str], part: str
) -> None:
    """Raises ``UserError`` where a part has classes that train has not."""
    others = sorted(set(folders) - set(classes))
    if others:
        raise UserError(
            f"the {part} part has {len(others)} classes that train has not: {shorten(others)} "
            "(data.root=…)"
        )


def shorten(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def image_paths(folder: Path) -> list[Path]:
    """The images below ``folder``, at any depth, sorted."""
    found, pending = [], [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    pending.append(entry.path)
                elif entry.name.lower().endswith(ENDINGS):
                    found.append(entry.path)
    return [Path(path) for path in sorted(found)]


def imagenet_rows(classes: Sequence[str]) -> list[int] | None:
    """Where ``classes`` stand among ImageNet-1k's 1000; None if one of them is no wnid of it.

    The 1000 are in the order of their wnids: that of the rows of every pretrained head.
    """
    if not all(re.fullmatch(r"n\d{8}", name) for name in classes):
        return None
    from timm.data import ImageNetInfo  # takes a second

    wnids = ImageNetInfo().label_names()
    assert wnids == sorted(wnids)
    row = {wnid: i for i, wnid in enumerate(wnids)}
    return [row[name] for name in classes] if row.keys() >= set(classes) else None


def download(dataset: Callable, root: Path | None) -> None:
    """Lets a torchvision data set download itself into ``root``, one process at a time.

    Raises:
        UserError: no root, or the download failed.
    """
    if root is None:
        raise UserError(
            "data.download=true needs a folder to download into, got none (data.root=…)"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{dataset.__name__}.lock"):
            dataset(root, download=True)  # which does nothing where all is there
    except (OSError, RuntimeError) as error:
        why = " ".join(str(error).split())  # torchvision says it in several lines
        raise UserError(
            f"the download of {dataset.__name__} into {root} failed: {why} (put the files there, "
            "or set data.root=…)"
        ) from None
