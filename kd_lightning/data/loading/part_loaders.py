"""The loaders of a data set's parts, for any device and number of ranks."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.batches import (
    SampleKey,
    Samples,
    SampleSet,
    Transform,
    Views,
)
from kd_lightning.data.loading.loaders import ResidentLoader, make_loader, no_collate
from kd_lightning.data.loading.mixing import mix, mix_with_sources
from kd_lightning.data.loading.resident import should_be_resident
from kd_lightning.data.loading.unlabeled import Unlabeled, WithUnlabeled

Part = Literal["train", "val", "test"]


class PartLoaders(LightningDataModule):
    """Makes the batches of the parts of ``ClassificationData``, which describes its arguments.

    Attributes:
        parts: name -> samples; None: there is no such part.
        views: that train is augmented to; None: each epoch augments it anew.
        mixing_sources: whether mixed batches also hold what they are made of.
        sample_indices: whether batches of train also hold the index of each sample.
        unlabeled_samples: that come with the batches of train.
    """

    batch_size: int
    num_classes: int
    num_workers: int
    seed: int
    resident: bool | Literal["auto"]
    augmentation: Transform | None
    mixing: Callable[..., Callable] | None
    unlabeled_ratio: float
    skip_bad: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[Part, Samples | None] = {}
        self._on_device: dict[tuple[str, torch.device], Samples] = {}
        self.views: Views | None = None
        self.mixing_sources = False
        self.sample_indices = False
        self.unlabeled_samples: Unlabeled | None = None

    @property
    def decode(self) -> Callable[[Any], Tensor] | None:
        """For data sets of files: the function that reads a file as (C, H, W) uint8, or raises
        ``BadImage``. Workers get it, so it must not hold the data module. None: there are no files.
        """
        return None

    def eval_transform(self) -> Callable[[Tensor], Tensor] | None:
        """The transform that brings samples to one size; None if they already have one size.

        It is used for val and test, and for train without augmentation.
        """
        return None

    def _sample_set(self, part: Part) -> SampleSet:
        samples = self.parts[part]
        if samples is None:
            raise UserError("there is no val part: set data.val_fraction > 0")
        training = part == "train"
        augmented = training and self.augmentation is not None
        mixing = None
        if training and self.mixing is not None and self.mixing_sources:
            mixing = functools.partial(mix_with_sources, self.mixing(), self.num_classes)
        elif training and self.mixing is not None:
            mixing = functools.partial(mix, self.mixing(num_classes=self.num_classes))
        return SampleSet(
            samples,
            seed=self.seed,
            decode=self.decode,
            transform=self.augmentation if augmented else self.eval_transform(),
            mixing=mixing,
            skip_bad=self.skip_bad,
            views=self.views if training else None,
            with_indices=training and self.sample_indices,
        )

    def view_loader(self, batches: Iterable[list[SampleKey]]) -> DataLoader:
        """Batches (x, y) of training samples, which are named by their view and index.

        They are not mixed. ``views`` must be set. With ``num_workers``, ``batches`` is read a few
        batches ahead.
        """
        samples = self._sample_set("train")
        samples.mixing, samples.with_indices = None, False
        return DataLoader(
            samples,
            batch_sampler=batches,
            collate_fn=no_collate,
            num_workers=self.num_workers,
        )

    def loader(
        self, part: Part, *, rank: int = 0, ranks: int = 1, device: torch.device | None = None
    ) -> DataLoader | ResidentLoader:
        """The batches of a part: shuffled and augmented for train, in order for val and test.

        Args:
            device: device of the network; the samples may be stored there (``resident``).

        Raises:
            UserError: there is no such part, it cannot be stored on the device, or ``batch_size``
                is not divisible by the number of ranks.
        """
        if self.batch_size % ranks:
            raise UserError(
                f"data.batch_size={self.batch_size} is global and must divide over {ranks} devices"
            )
        samples = self._sample_set(part)
        return make_loader(
            samples,
            self.batch_size,
            shuffle=part == "train",
            rank=rank,
            ranks=ranks,
            **self._placed(samples, part, device),
        )

    def _placed(self, samples: SampleSet, part: str, device: torch.device | None) -> dict[str, Any]:
        """Where a loader of ``samples`` makes its batches. Puts them on the device if they are to
        be there.
        """
        is_resident = device is not None and (
            (part, device) in self._on_device
            or should_be_resident(samples, part, device, self.resident, self.num_workers)
        )
        if is_resident:  # copied only once, for all loaders of the part
            if (part, device) not in self._on_device:
                self._on_device[part, device] = samples.samples.to(device)
            samples.samples = self._on_device[part, device]
        return {
            "num_workers": self.num_workers,
            "pin_memory": device is not None and device.type == "cuda",
            "device": device if is_resident else None,
        }

    def train_loader(
        self, *, rank: int = 0, ranks: int = 1, device: torch.device | None = None
    ) -> DataLoader | ResidentLoader | WithUnlabeled:
        """The batches of train, with ``unlabeled_samples`` if there are any."""
        labeled = self.loader("train", rank=rank, ranks=ranks, device=device)
        if self.unlabeled_samples is None:
            return labeled
        samples, count = self.unlabeled_samples.sample_set(self.seed), self.unlabeled_samples.count
        if count % ranks:
            raise UserError(
                f"data.unlabeled_ratio={self.unlabeled_ratio:g} gives {count} unlabeled samples a "
                f"step, which must divide over {ranks} devices: change it, or data.batch_size"
            )
        steps = len(self.parts["train"]) // self.batch_size
        placed = self._placed(samples, "the unlabeled samples", device)
        unlabeled = make_loader(
            samples, count, shuffle=True, rank=rank, ranks=ranks, steps=steps, **placed
        )
        return WithUnlabeled(labeled, unlabeled, device)

    def _of_this_rank(self) -> dict[str, Any]:
        trainer = self.trainer
        if trainer is None:
            return {}
        device = trainer.strategy.root_device
        return {"rank": trainer.global_rank, "ranks": trainer.world_size, "device": device}

    def _loader_of_this_rank(self, part: Part) -> DataLoader | ResidentLoader:
        return self.loader(part, **self._of_this_rank())

    def train_dataloader(self) -> DataLoader | ResidentLoader | WithUnlabeled:
        return self.train_loader(**self._of_this_rank())

    def val_dataloader(self) -> DataLoader | ResidentLoader | list:
        return [] if self.parts["val"] is None else self._loader_of_this_rank("val")

    def test_dataloader(self) -> DataLoader | ResidentLoader:
        return self._loader_of_this_rank("test")
