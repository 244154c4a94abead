"""The base class of data sets of image files, which are decoded when a batch needs them."""

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import UInt8
from torch import Tensor

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import Count, ShareAboveZero
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.decoding import read_rgb
from kd_lightning.data.loading.image_trees import ImageTree
from kd_lightning.data.loading.resizing import Resizing

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1], the usual normalisation of photographs
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFiles(ClassificationData):
    """Image files that are decoded to RGB when a batch needs them.

    Args:
        image_size: side of the images that the networks get.
        resize: how val and test, and train without augmentation, get this size: ``crop``,
            ``squash`` or ``letterbox`` (``data/loading/resizing.py``).
        crop_fraction: for ``crop``, the short side is resized to ``image_size / crop_fraction``,
            then the centre is cropped to ``image_size``.
        interpolation: of this resizing: ``nearest``, ``nearest-exact``, ``bilinear``, ``bicubic``.
        exif: whether images are turned as their orientation tag (EXIF) says, as cameras and
            phones expect. False: tags are ignored, as in all published results on ImageNet.
        on_bad_image: what happens if a file cannot be decoded: ``error``, or ``skip``, which leaves
            it out of its batch with a warning.

    ``eval_transform`` reads the attributes ``image_size``, ``resize``, ``crop_fraction`` and
    ``interpolation`` when it is called, so a copy of the data set can be tested in another way.
    """

    def __init__(
        self,
        *,
        image_size: Count = 224,
        resize: str = "crop",
        crop_fraction: ShareAboveZero = 0.875,
        interpolation: str = "bilinear",
        exif: bool = False,
        on_bad_image: str = "error",
        **common,
    ) -> None:
        super().__init__(**common)
        if on_bad_image not in ("error", "skip"):
            raise unknown("choice", on_bad_image, ["error", "skip"], "data.on_bad_image")
        self.image_size = image_size
        self.resize = resize
        self.crop_fraction = crop_fraction
        self.interpolation = interpolation
        self.exif = exif
        self.skip_bad = on_bad_image == "skip"
        self.eval_transform()  # checks the values

    @property
    def decode(self) -> Callable[[Path], UInt8[Tensor, "3 H W"]]:
        return functools.partial(read_rgb, exif=self.exif)

    def eval_transform(self) -> Resizing:
        return Resizing(self.image_size, self.resize, self.crop_fraction, self.interpolation)

    def read_tree(
        self, tree: ImageTree, classes: Sequence[str], keys: str = "data.root=…"
    ) -> Samples:
        """The images of a tree with their labels. Adds to ``notes`` what was passed over.

        Args:
            keys: settings that the user can change, for error messages.

        Raises:
            UserError: a class has no folder; or a file cannot be read, and ``on_bad_image`` is
                ``error``.
        """
        samples = tree.label(classes, keys)
        self.notes += tree.notes(skip_bad=self.skip_bad)
        return samples

    def _measure(self, train: Samples) -> None:
        self.channels, self.size = 3, self.image_size
        self.mean, self.std = list(IMAGENET_MEAN), list(IMAGENET_STD)
        photo = (3, 2 * self.image_size, 3 * self.image_size)  # no square, so one is not assumed
        self._check_augmentation(torch.zeros(photo, dtype=torch.uint8))


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
