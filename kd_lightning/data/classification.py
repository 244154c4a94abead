"""The base class of all data sets: the seeded train/val split, metadata and checks.

A data set is a subclass of ``ClassificationData`` that implements ``load``. Batches of images are
uint8 or float in [0, 1], batches of series are float32; each network normalises its own input.
"""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import Tensor

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.ranges import Count, Positive, Range, Seed, ShareBelowOne
from kd_lightning.config.values import CheckedNumbers
from kd_lightning.data.loading.batches import Samples, Transform
from kd_lightning.data.loading.channel_statistics import channel_statistics
from kd_lightning.data.loading.checks import (
    check_augmentation,
    check_classes_after_split,
    check_mixing,
    check_samples,
    fingerprint,
    notes_on_lacking_classes,
    notes_on_units,
)
from kd_lightning.data.loading.leaks import CHOICES, check_leak
from kd_lightning.data.loading.limited_labels import limit_labels
from kd_lightning.data.loading.part_loaders import PartLoaders
from kd_lightning.data.loading.splits import split


@dataclass(frozen=True)
class Parts:
    """The parts of a data set, as returned by ``load``.

    Attributes:
        train: training samples.
        test: test samples.
        class_names: one name for each class, in label order.
        val: validation samples; None: they are split off from ``train``.
        test_is: description of where the test part comes from, for tables and records.
        test_is_cut: whether the test part was split off from train with ``split_seed``.
    """

    train: Samples
    test: Samples
    class_names: list[str]
    val: Samples | None = None
    test_is: str = "the data set's own test part"
    test_is_cut: bool = False


class ClassificationData(CheckedNumbers, PartLoaders):
    """A labelled data set with a train, a val and a test part.

    Args:
        batch_size: global batch size, divided over the ranks.
        root: folder of the files (with ``download``, they are written there).
        val_fraction: share of train that becomes val. 0: no val part, the last epoch is the result.
        split_seed: seed of the train/val split. It is not the seed of the run: runs of all seeds
            share one split, so a teacher was never trained on the val part of its student.
        train_per_class: number of samples of each class that are used, before val is split off from
            train; None: all.
        label_noise: share of the train labels that are replaced by wrong ones. The labels of val
            and test are right.
        noisy_val: whether a val that is split off from train has wrong labels too, as it has in
            practice where nobody knows which labels are right. The samples of train and val, and
            the wrong labels of train, are the same either way.
        seed: seed of order, augmentation and mixing.
        num_workers: number of loading processes; 0 is fastest for data in memory.
        resident: whether the samples of a part are stored on the device and its batches are made
            there, without loading processes. "auto": yes if the part is one array and its
            augmentation takes whole batches, and in addition: on a GPU, the part takes less than a
            quarter of the free memory; on a CPU, it is a tensor and ``num_workers`` is 0.
        on_leak: what happens if test samples have the same content as samples of train or val:
            ``warn``, which adds to ``notes``; ``error``; ``ignore``. Prepared and streamed images
            are checked in preparation.
        augmentation: transform of training samples: a ``BatchTransform``, or a function (C, *size)
            -> (C, *size) such as torchvision's transforms v2.
        mixing: ``torchvision.transforms.v2.MixUp`` or ``CutMix``, still without ``num_classes``;
            teacher and students get the same mixed batch.
        unlabeled: another data set of ``conf/data``, or a folder of images: samples for methods
            that learn from samples without labels too. A run sets ``unlabeled_samples``.
        unlabeled_ratio: unlabeled samples for each labeled one.
        unlabeled_options: keys of that data set and their values.

    ``setup`` sets these attributes: ``num_classes``, ``class_names``, ``channels``, ``size`` (side
    of an image, length of a series), ``mean`` and ``std`` of each channel, ``fingerprint`` (hash of
    the content), ``protocol`` (description of val and test). ``load`` and ``setup`` add a sentence
    to ``notes`` for all that a person should know about how the files were read.
    """

    section = "data"
    num_classes: int
    class_names: list[str]
    channels: int
    size: int
    mean: list[float]
    std: list[float]
    fingerprint: str
    protocol: str
    has_files: bool = True  # False: the data set reads no folder and refuses ``root``
    imagenet_rows: list[int] | None = None  # index of each class in ImageNet-1k
    val_has_wrong_labels = False

    def __init__(
        self,
        *,
        batch_size: Count,
        root: str | None = None,
        val_fraction: ShareBelowOne = 0.1,
        split_seed: Seed = 0,
        train_per_class: Count | None = None,
        label_noise: ShareBelowOne = 0.0,
        noisy_val: bool = False,
        seed: Seed = 0,
        num_workers: Annotated[int, Range(least=0, limit=1024)] = 0,
        resident: bool | Literal["auto"] = "auto",
        on_leak: str = "warn",
        augmentation: Transform | None = None,
        mixing: Callable[..., Callable] | None = None,
        unlabeled: str | None = None,
        unlabeled_ratio: Positive = 1.0,
        unlabeled_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if root is not None and not self.has_files:
            raise UserError(
                f"{type(self).__name__} reads no files, got data.root={root}: remove it"
            )
        if on_leak not in CHOICES:
            raise unknown("choice", str(on_leak), CHOICES, "data.on_leak")
        self.batch_size = batch_size
        if root is not None and not str(root).strip():
            raise UserError("data.root must be a path, got an empty one (data.root=…)")
        self.root = None if root is None else Path(root).expanduser()
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.train_per_class = train_per_class
        self.label_noise = label_noise
        self.noisy_val = noisy_val
        self.seed = seed
        self.num_workers = num_workers
        self.resident = resident
        self.on_leak = on_leak
        self.unlabeled = unlabeled
        self.unlabeled_ratio = unlabeled_ratio
        self.unlabeled_options = dict(unlabeled_options or {})
        self.augmentation = augmentation
        self.mixing = mixing
        self.notes: list[str] = []

    @abstractmethod
    def load(self) -> Parts:
        """Reads the data set. It is called once on every rank, after ``prepare_data``."""

    def setup(self, stage: str | None = None) -> None:
        """Loads, splits and checks the data and sets the attributes. Further calls do nothing."""
        if self.parts:
            return
        parts = self.load()
        train, val, val_is = parts.train, parts.val, "the data set's own"
        for name, part in (("train", train), ("val", val), ("test", parts.test)):
            if part is not None:
                check_samples(part, parts.class_names, name)
        train, right, label_note = limit_labels(
            train,
            len(parts.class_names),
            self.train_per_class,
            self.label_noise,
            self.noisy_val,
            self.split_seed,
        )
        if val is None and self.val_fraction > 0:
            # by the right labels, so that each amount of noise has the same val
            kept, held_out = split(right, train.groups, self.val_fraction, self.split_seed)
            train, val = train.subset(kept), train.subset(held_out)
            self.val_has_wrong_labels = self.label_noise > 0 and self.noisy_val
            if not self.noisy_val:
                val = replace(val, y=right[held_out])
            share, by = self.val_fraction, "stratified by class"
            if train.groups is not None:  # whole subjects: may be more, and of few classes
                share, by = len(held_out) / (len(kept) + len(held_out)), "by subject"
                check_classes_after_split(train, parts.class_names)
            val_is = f"{share:.0%} of train, {by} (split_seed {self.split_seed})"
        others = {"val": val, "test": parts.test}
        self.notes += notes_on_lacking_classes(others, parts.class_names)
        if len(train) < self.batch_size:
            raise UserError(
                f"data.batch_size={self.batch_size} is larger than the training part, which has "
                f"{len(train)} samples: lower data.batch_size"
            )
        self.class_names = list(parts.class_names)
        self.num_classes = len(self.class_names)
        self.fingerprint = fingerprint(train, val, parts.test)
        val_is = val_is if val is not None else "none, last epoch"
        self.protocol = (
            f"{label_note}val: {val_is}; test: {parts.test_is} "
            f"({len(train)} / {0 if val is None else len(val)} / {len(parts.test)} samples)"
        )
        self._measure(train)
        self.notes += notes_on_units(train, others, self.mean, self.std)
        self.notes += check_leak(train, val, parts.test, self.on_leak)
        if self.mixing is not None:
            check_mixing(self.mixing, self.num_classes)
        self.parts = {"train": train, "val": val, "test": parts.test}

    @property
    def classes_sha256(self) -> str:
        """Hash of the class names in label order."""
        return hashlib.sha256("\n".join(self.class_names).encode()).hexdigest()

    def _measure(self, train: Samples) -> None:
        """Sets ``channels``, ``size``, ``mean`` and ``std``; checks the augmentation."""
        if isinstance(train.x, Tensor):
            self.channels, self.size = train.x.shape[1], train.x.shape[-1]
            if set(train.x.shape[2:]) != {self.size}:
                raise UserError(
                    f"images must be square, got {tuple(train.x.shape[2:])} (data.root=…)"
                )
            self.mean, self.std = channel_statistics(train.x)
            if not all(map(math.isfinite, (*self.mean, *self.std))):
                raise UserError(
                    f"values reach {train.x.abs().max():.3g}, too large to be normalized: those "
                    "that stand for missing ones must be replaced (data.root=…)"
                )
            self._check_augmentation(train.x[0])

    def _check_augmentation(self, example: Tensor) -> None:
        if self.augmentation is not None:
            check_augmentation(self.augmentation, example, self.channels, self.size)
