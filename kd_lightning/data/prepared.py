"""``data=prepared``: images that ``kd_lightning.prepare`` has decoded, one uint8 array a part.

``data/preparation/decode.py`` writes the folder: ``train.npy``, ``test.npy`` and maybe ``val.npy``,
each (N, S, S, 3), and ``index.json``, which describes them and is written last. A run decodes
nothing, augments whole batches, and stores the images on the GPU if they fit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranges import Count, Seed, ShareAboveZero, ShareBelowOne
from kd_lightning.base.reading import reading
from kd_lightning.data.augmentation import BatchTransform, CenterCrop, Compose, Resize
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.disk_array import DiskArray
from kd_lightning.data.loading.folders import check_folder
from kd_lightning.data.loading.image_files import IMAGENET_MEAN, IMAGENET_STD
from kd_lightning.data.loading.prepared_facts import ADVICE, read_facts, resolve_prepared
from kd_lightning.data.loading.resizing import Resizing
from kd_lightning.data.loading.splits import resolve_split_seed
from kd_lightning.records.resumed_config import EARLIER_READING

FORMAT = 3
CROP_VERSION = 2  # version of how images are resized and cropped; part of the fingerprint
INDEX_FILE = "index.json"
UNFINISHED_FILE = "unfinished.json"  # exists while the arrays are being written


class Prepared(ClassificationData):
    """``root`` is the prepared folder. Parts, labels and split are those of the source image tree.

    Val and test images are bit for bit those of the tree, if ``image_size`` and ``crop_fraction``
    are those of preparation, and ``size`` was not set. Training images differ: random crops are
    taken from the central S x S square of each image (whose short side is S), not from the image.

    Args:
        val_fraction: share of train that becomes val; None: that of preparation.
        split_seed: seed of the train/val split; None: that of preparation. If the test part was
            split off from train during preparation, no other seed is accepted.
        image_size: side of the images that the networks get.
        crop_fraction: only for ``resize=crop``: for val and test, and for train without
            augmentation, the images are resized to ``image_size / crop_fraction``, then the centre
            is cropped to ``image_size``.
        resize, interpolation, exif: how the images were read and resized; None: as in preparation.
            No other value is accepted.

    Attributes:
        class_list_sha256: hash of the class list; None: the source data set had none.
    """

    class_list_sha256: str | None = None

    def __init__(
        self,
        *,
        val_fraction: ShareBelowOne | None = None,
        split_seed: Seed | None = None,
        image_size: Count = 224,
        crop_fraction: ShareAboveZero = 0.875,
        resize: str | None = None,
        interpolation: str | None = None,
        exif: bool | None = None,
        **common,
    ) -> None:
        super().__init__(
            val_fraction=0.0 if val_fraction is None else val_fraction,
            split_seed=0 if split_seed is None else split_seed,
            **common,
        )
        self.image_size = image_size
        self.crop_fraction = crop_fraction
        self._requested = {"resize": resize, "interpolation": interpolation, "exif": exif}
        requested = {k: v for k, v in self._requested.items() if v is not None}
        self._use_facts(EARLIER_READING | requested)
        self._use_prepared_val_fraction = val_fraction is None
        self._requested_split_seed = split_seed
        self._side = 0  # S; ``load`` sets it

    def load(self) -> Parts:
        root, index = read_index(self.root)
        self._use_facts(index)
        self.notes += index.get("notes", [])
        self._side, side = index["size"], self._resizing().side
        if side > self._side:
            raise UserError(
                f"data.image_size={self.image_size} and data.crop_fraction={self.crop_fraction} "
                f"need images of {side} pixels, the prepared ones have {self._side}: prepare them "
                f"with size={side}, or lower data.image_size"
            )
        if self._use_prepared_val_fraction:
            self.val_fraction = index["val_fraction"]
        self.split_seed = resolve_split_seed(index, self._requested_split_seed)
        self.imagenet_rows = index["imagenet_rows"]
        self.class_list_sha256 = index["class_list_sha256"]
        samples = {part: read_part(root, index, part) for part in index["parts"]}
        return Parts(
            train=samples["train"],
            val=samples.get("val"),
            test=samples["test"],
            class_names=index["class_names"],
            test_is=index["test_is"],
            test_is_cut=index["test_is_cut"],
        )

    def eval_transform(self) -> BatchTransform:
        # a prepared image is a square: only its side is left to change, whatever ``resize`` is
        side = self._resizing().side
        resize = [] if side == self._side else [Resize(side, self.interpolation)]
        return Compose([*resize, CenterCrop(self.image_size)])

    def _resizing(self) -> Resizing:
        return Resizing(self.image_size, self.resize, self.crop_fraction, self.interpolation)

    def _use_facts(self, facts: Mapping[str, Any]) -> None:
        """Sets ``resize``, ``interpolation`` and ``exif``, and checks all that depends on them."""
        for key, requested in self._requested.items():
            setattr(self, key, resolve_prepared(facts, key, requested))
        self._resizing()

    def _measure(self, train: Samples) -> None:
        self.channels, self.size = 3, self.image_size
        self.mean, self.std = list(IMAGENET_MEAN), list(IMAGENET_STD)
        self._check_augmentation(torch.zeros(train.x.shape[1:], dtype=torch.uint8))


def read_index(root: Path | None) -> tuple[Path, dict[str, Any]]:
    """The folder and its index.

    Raises:
        UserError: the folder was not prepared, is not finished, or has another format.
    """
    if root is not None and (root / UNFINISHED_FILE).exists():
        raise UserError(
            f"{root} is not finished: run the command that prepares it again, it resumes where it "
            "stopped (data.root=…)"
        )
    root = check_folder(root, [INDEX_FILE], "a folder that python -m kd_lightning.prepare has made")
    return root, read_facts(root / INDEX_FILE, root, FORMAT, ["bad"])


def read_part(root: Path, index: dict[str, Any], part: str) -> Samples:
    """The samples of a part, without the images that could not be decoded.

    Raises:
        UserError: the array is missing, or does not match the index.
    """
    facts, path = index["parts"][part], root / f"{part}.npy"
    now = {key: index.get(key, was) for key, was in EARLIER_READING.items()}
    newer = [f"{key}={value}" for key, value in now.items() if value != EARLIER_READING[key]]
    content_id = " ".join([facts["source"], f"{index['image_size']} {CROP_VERSION}", *newer])
    rows = torch.ones(len(facts["labels"]), dtype=torch.bool)
    rows[facts["bad"]] = False
    rows = rows.nonzero().flatten()
    with reading(path, "data.root", ADVICE):
        x = DiskArray(path, rows, content_id)
    shape = (len(facts["labels"]), index["size"], index["size"], 3)
    if x.file_shape != shape or x.file_dtype != np.uint8:
        raise UserError(
            f"{path} must have the shape {shape} of its index and bytes, it has {x.file_shape} "
            f"{x.file_dtype}: prepare it again (data.root=…)"
        )
    return Samples(x, torch.tensor(facts["labels"])[rows])
