"""Images that ``python -m kd_lightning.prepare`` has decoded: one array of bytes for each part.

The folder holds ``train.npy``, ``test.npy`` and perhaps ``val.npy``, each (N, S, S, 3), and
``index.json``, which says what they are of and is written last. Nothing is decoded any more, whole
batches are augmented at once, and what fits lies on the GPU.
"""

import json
from pathlib import Path
from typing import Any

import torch

from kd_lightning.base.errors import UserError
from kd_lightning.data.augmentation import BatchTransform, CenterCrop, Compose, Resize
from kd_lightning.data.classification import ClassificationData, Parts
from kd_lightning.data.loading.batches import Samples
from kd_lightning.data.loading.disk_array import OnDisk
from kd_lightning.data.loading.folders import check_folder
from kd_lightning.data.loading.image_files import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_sizes,
    short_side,
)
from kd_lightning.data.loading.splits import split_seed_of

FORMAT = 3
SQUARES = 2  # of how the squares are made of images: part of the data's fingerprint
INDEX = "index.json"
UNFINISHED = "unfinished.json"  # instead, while the arrays are being written


class Prepared(ClassificationData):
    """``root`` is the folder. Parts, labels and split are those of the tree it was made of.

    Val and test show a net the very bytes that the tree would, where ``image_size`` and
    ``crop_fraction`` are those that it was prepared with, and ``size`` was not stated. Training
    differs: what is cropped at random is the square of side S in the middle of each image, short
    side S, and not the image.

    Args:
        val_fraction: share of train that becomes val; None: what the tree's data set had.
        split_seed: None: the tree's; where its test part was cut from train, no other is taken.
        image_size: side of what the nets get.
        crop_fraction: for val and test, and for train without augmentation, the images become
            ``image_size / crop_fraction`` wide, and the centre is cut out.

    Attributes:
        class_list_sha256: of the list of classes, where the tree's data set had one.
    """

    class_list_sha256: str | None = None

    def __init__(
        self,
        *,
        val_fraction: float | None = None,
        split_seed: int | None = None,
        image_size: int = 224,
        crop_fraction: float = 0.875,
        **common,
    ) -> None:
        super().__init__(
            val_fraction=0.0 if val_fraction is None else val_fraction,
            split_seed=0 if split_seed is None else split_seed,
            **common,
        )
        check_sizes(image_size, crop_fraction)
        self.image_size = image_size
        self.crop_fraction = crop_fraction
        self._splits_as_the_tree = val_fraction is None
        self._asked_split_seed = split_seed
        self._side = 0  # S, once it has been read

    def load(self) -> Parts:
        root, index = read_index(self.root)
        self._side = index["size"]
        side = short_side(self.image_size, self.crop_fraction)
        if side > self._side:
            raise UserError(
                f"data.image_size={self.image_size} and data.crop_fraction={self.crop_fraction} "
                f"need images of {side} pixels, these have {self._side}: prepare them with "
                f"size={side}, or lower data.image_size"
            )
        if self._splits_as_the_tree:
            self.val_fraction = index["val_fraction"]
        self.split_seed = split_seed_of(index, self._asked_split_seed)
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
        side = short_side(self.image_size, self.crop_fraction)
        steps: list[BatchTransform] = [] if side == self._side else [Resize(side)]
        return Compose([*steps, CenterCrop(self.image_size)])

    def _measure(self, train: Samples) -> None:
        self.channels, self.size = 3, self.image_size
        self.mean, self.std = list(IMAGENET_MEAN), list(IMAGENET_STD)
        self._check_augmentation(torch.zeros(train.x.shape[1:], dtype=torch.uint8))


def read_index(root: Path | None) -> tuple[Path, dict[str, Any]]:
    """The folder, and what its index says.

    Raises:
        UserError: it is no such folder, one that is not finished, or one of another format.
    """
    if root is not None and (root / UNFINISHED).exists():
        raise UserError(
            f"{root} is not finished: run the command that prepares it again, which goes on where "
            "it stopped (data.root=…)"
        )
    root = check_folder(root, [INDEX], "a folder that python -m kd_lightning.prepare has made")
    index = json.loads((root / INDEX).read_text())
    if index.get("format") != FORMAT:
        raise UserError(
            f"{root} is of format {index.get('format')}, this version reads {FORMAT}: prepare it "
            "again (data.root=…)"
        )
    return root, index


def read_part(root: Path, index: dict[str, Any], part: str) -> Samples:
    """The samples of a part, without the images that could not be decoded.

    Raises:
        UserError: the array is missing, or not what the index says.
    """
    says, path = index["parts"][part], root / f"{part}.npy"
    known_by = " ".join(str(one) for one in (says["source"], index["image_size"], SQUARES))
    rows = torch.ones(len(says["labels"]), dtype=torch.bool)
    rows[says["bad"]] = False
    rows = rows.nonzero().flatten()
    try:
        x = OnDisk(path, rows, known_by)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error} (data.root=…)") from None
    shape = (len(says["labels"]), index["size"], index["size"], 3)
    if x.file_shape != shape:
        raise UserError(
            f"{path} must be of shape {shape}, as its index says, it is {x.file_shape}: prepare it "
            "again (data.root=…)"
        )
    return Samples(x, torch.tensor(says["labels"])[rows])
