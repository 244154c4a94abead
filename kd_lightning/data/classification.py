"""What all data sets share: loaders, the seeded split, the facts that nets are built from, checks.

A data set is a subclass that says how to ``load`` its parts. Images leave it as uint8 or [0, 1],
series as float32; each net normalises its own input.
"""

import functools
import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.batches import Samples, SampleSet, Transform, Views
from kd_lightning.data.loading.checks import (
    check_augmentation,
    check_mixing,
    check_samples,
    fingerprint,
)
from kd_lightning.data.loading.limited_labels import made_scarce
from kd_lightning.data.loading.loaders import ResidentLoader, as_is, make_loader
from kd_lightning.data.loading.resident import is_to_be_held
from kd_lightning.data.loading.splits import split

Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Parts:
    """What a data set is made of. ``val`` None: cut from ``train``.

    Attributes:
        class_names: in label order; their number is the number of classes.
        test_is: where the test part comes from, in words, for tables and records.
        test_is_cut: it was cut from train, by ``split_seed``.
    """

    train: Samples
    test: Samples
    class_names: list[str]
    val: Samples | None = None
    test_is: str = "the data set's own test part"
    test_is_cut: bool = False


class ClassificationData(LightningDataModule):
    """A labelled data set with a train, a val and a test part.

    Args:
        batch_size: global; divided over the ranks.
        root: where the files are (or go, if ``download``).
        val_fraction: share of train that becomes val. 0: no val, the last epoch is the result.
        split_seed: of the train/val split. Not the run's seed: all seeds share one split, so no
            teacher has seen its student's val part.
        train_per_class: so many samples of each class make up train, before val is cut from it;
            None: all.
        label_noise: share of train's labels that are made wrong, before val is cut from it: val is
            as wrong as it would be in practice. A val part of the data set's own, and test, stay
            right.
        seed: of order, augmentation and mixing.
        num_workers: processes that load; 0 is fastest for data that are in memory.
        resident: hold a part on the device, and make its batches there, without loading processes;
            "auto": where it is augmented by functions of whole batches, and on a GPU is in memory
            and fits in a quarter of what is free there, on a CPU is one tensor and no processes
            are asked for.
        augmentation: of training samples: a ``BatchTransform``, or (C, *size) -> (C, *size), such
            as torchvision's transforms v2.
        mixing: ``torchvision.transforms.v2.MixUp`` or ``CutMix``, lacking only ``num_classes``;
            teacher and students get the same mixed batch.

    After ``setup`` these facts hold: ``num_classes``, ``class_names``, ``channels``, ``size`` (side
    of an image, length of a series), ``mean`` and ``std`` per channel, ``fingerprint`` (of the
    content), ``protocol`` (what val and test are, in words).
    """

    num_classes: int
    class_names: list[str]
    channels: int
    size: int
    mean: list[float]
    std: list[float]
    fingerprint: str
    protocol: str
    has_files: bool = True  # False: the data come from no folder, and ``root`` is refused
    imagenet_rows: list[int] | None = None  # this data set's classes among ImageNet-1k's 1000

    def __init__(
        self,
        *,
        batch_size: int,
        root: str | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        train_per_class: int | None = None,
        label_noise: float = 0.0,
        seed: int = 0,
        num_workers: int = 0,
        resident: bool | Literal["auto"] = "auto",
        augmentation: Transform | None = None,
        mixing: Callable[..., Callable] | None = None,
    ) -> None:
        super().__init__()
        if root is not None and not self.has_files:
            raise UserError(
                f"{type(self).__name__} reads no files, got data.root={root}: leave it out"
            )
        if batch_size < 1:
            raise UserError(f"data.batch_size must be >= 1, got {batch_size}")
        if not 0 <= val_fraction < 1:
            raise UserError(f"data.val_fraction must be in [0, 1), got {val_fraction}")
        if train_per_class is not None and train_per_class < 1:
            raise UserError(f"data.train_per_class must be >= 1 or null, got {train_per_class}")
        if not 0 <= label_noise < 1:
            raise UserError(f"data.label_noise must be in [0, 1), got {label_noise}")
        if num_workers < 0:
            raise UserError(f"data.num_workers must be >= 0, got {num_workers}")
        self.batch_size = batch_size
        self.root = None if root is None else Path(root).expanduser()
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.train_per_class = train_per_class
        self.label_noise = label_noise
        self.seed = seed
        self.num_workers = num_workers
        self.resident = resident
        self.augmentation = augmentation
        self.mixing = mixing
        self.parts: dict[Part, Samples | None] = {}
        self._held: dict[tuple[Part, torch.device], Samples] = {}
        self.views: Views | None = None  # of the training part; None: augmented anew each epoch

    @abstractmethod
    def load(self) -> Parts:
        """Reads the data set. Called once, after ``prepare_data``, on every rank."""

    @staticmethod  # workers get it pickled, and not the whole data module with it
    def decode(path: Path) -> Tensor:
        """Path -> (C, H, W) uint8, for data sets of files. Raises ``BadImage``."""
        raise NotImplementedError

    def eval_transform(self) -> Callable[[Tensor], Tensor] | None:
        """What brings samples to the common size; None if they have it.

        For val and test, and for train where there is no augmentation.
        """
        return None

    skip_bad: bool = False

    def setup(self, stage: str | None = None) -> None:
        """Loads, splits, checks, and states the facts. Further calls do nothing."""
        if self.parts:
            return
        parts = self.load()
        train, val, how = parts.train, parts.val, "the data set's own"
        for name, part in (("train", train), ("val", val), ("test", parts.test)):
            if part is not None:
                check_samples(part, parts.class_names, name)
        train, scarcity = made_scarce(
            train, len(parts.class_names), self.train_per_class, self.label_noise, self.split_seed
        )
        if val is None and self.val_fraction > 0:
            kept, held = split(train.y, train.groups, self.val_fraction, self.split_seed)
            train, val = train.subset(kept), train.subset(held)
            by = "stratified by class" if train.groups is None else "by subject"
            how = f"{self.val_fraction:.0%} of train, {by} (split_seed {self.split_seed})"
        if len(train) < self.batch_size:
            raise UserError(
                f"data.batch_size={self.batch_size} is larger than the training part, which has "
                f"{len(train)} samples: lower data.batch_size"
            )
        self.class_names = list(parts.class_names)
        self.num_classes = len(self.class_names)
        self.fingerprint = fingerprint(train, val, parts.test)
        how = how if val is not None else "none, last epoch"
        self.protocol = (
            f"{scarcity}val: {how}; test: {parts.test_is} "
            f"({len(train)} / {0 if val is None else len(val)} / {len(parts.test)} samples)"
        )
        self._measure(train)
        if self.mixing is not None:
            check_mixing(self.mixing, self.num_classes)
        self.parts = {"train": train, "val": val, "test": parts.test}

    @property
    def classes_sha256(self) -> str:
        """Hash of the classes' names, in label order."""
        return hashlib.sha256("\n".join(self.class_names).encode()).hexdigest()

    def _measure(self, train: Samples) -> None:
        if isinstance(train.x, Tensor):
            self.channels, self.size = train.x.shape[1], train.x.shape[-1]
            if set(train.x.shape[2:]) != {self.size}:
                raise UserError(
                    f"images must be square, they are {tuple(train.x.shape[2:])} (data.root=…)"
                )
            x = train.x.float() / (255 if train.x.dtype == torch.uint8 else 1)
            dims = [d for d in range(x.ndim) if d != 1]
            self.mean = x.mean(dims).tolist()
            self.std = x.std(dims).clamp_min(1e-6).tolist()
            self._check_augmentation(train.x[0])

    def _check_augmentation(self, example: Tensor) -> None:
        if self.augmentation is not None:
            check_augmentation(self.augmentation, example, self.channels, self.size)

    def _sample_set(self, part: Part) -> SampleSet:
        samples = self.parts[part]
        if samples is None:
            raise UserError("there is no val part: set data.val_fraction > 0")
        training = part == "train"
        augmented = training and self.augmentation is not None
        mixing = None
        if training and self.mixing is not None:
            mixing = functools.partial(mix, self.mixing(num_classes=self.num_classes))
        return SampleSet(
            samples,
            seed=self.seed,
            decode=self.decode,
            transform=self.augmentation if augmented else self.eval_transform(),
            mixing=mixing,
            skip_bad=self.skip_bad,
            views=self.views if training else None,
        )

    def view(self, number: int, indices: Sequence[int], batch_size: int) -> DataLoader:
        """Batches of training samples as view ``number`` shows them, in the order of ``indices``.

        Each is (x, y), not mixed. ``views`` must be set.
        """
        keys = [(number, index) for index in indices]
        batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
        return DataLoader(
            self._sample_set("train"),
            batch_sampler=batches,
            collate_fn=as_is,
            num_workers=self.num_workers,
        )

    def loader(
        self, part: Part, *, rank: int = 0, ranks: int = 1, device: torch.device | None = None
    ) -> DataLoader | ResidentLoader:
        """The batches of a part: shuffled and augmented for train, in order for val and test.

        Args:
            device: where the net is, so that the part may be held there.

        Raises:
            UserError: there is no such part, it cannot be held, or ``batch_size`` does not divide
                over the ranks.
        """
        if self.batch_size % ranks:
            raise UserError(
                f"data.batch_size={self.batch_size} is global and must divide over {ranks} devices"
            )
        samples = self._sample_set(part)
        holds = device is not None and (
            (part, device) in self._held
            or is_to_be_held(samples, part, device, self.resident, self.num_workers)
        )
        if holds:  # copied once, however often its loader is asked for
            if (part, device) not in self._held:
                self._held[part, device] = samples.samples.to(device)
            samples.samples = self._held[part, device]
        return make_loader(
            samples,
            self.batch_size,
            shuffle=part == "train",
            rank=rank,
            ranks=ranks,
            num_workers=self.num_workers,
            pin_memory=device is not None and device.type == "cuda",
            device=device if holds else None,
        )

    def _loader_of_this_rank(self, part: Part) -> DataLoader | ResidentLoader:
        trainer = self.trainer
        if trainer is None:
            return self.loader(part)
        device = trainer.strategy.root_device
        return self.loader(part, rank=trainer.global_rank, ranks=trainer.world_size, device=device)

    def train_dataloader(self) -> DataLoader | ResidentLoader:
        return self._loader_of_this_rank("train")

    def val_dataloader(self) -> DataLoader | ResidentLoader | list:
        return [] if self.parts["val"] is None else self._loader_of_this_rank("val")

    def test_dataloader(self) -> DataLoader | ResidentLoader:
        return self._loader_of_this_rank("test")


def mix(mixing: Callable, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Torchvision's ``mixing`` of a batch of images (B, C, H, W) or series (B, C, L).

    Raises:
        UserError: CutMix for series.
    """
    if x.ndim == 4:
        return mixing(x, y)
    if "CutMix" in type(mixing).__name__:
        raise UserError("CutMix cuts rectangles: use MixUp for series (data.mixing=…)")
    x, y = mixing(x.unsqueeze(2), y)  # torchvision mixes images: a series is one of height 1
    return x.squeeze(2), y
