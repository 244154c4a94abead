"""From samples to batches: order, decoding, augmentation and mixing, each from its named stream.

Order follows from (seed, epoch), augmentation from (seed, epoch, sample), mixing from (seed, epoch,
first sample of the batch): not from workers, ranks, or what else drew random numbers. Batches are
made whole (``__getitems__``), so data that fit in one tensor are indexed once a batch.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from kd_lightning.data.augmentation import BatchTransform, Draws
from kd_lightning.data.on_disk import OnDisk
from kd_lightning.data.packed import Packed
from kd_lightning.errors import UserError
from kd_lightning.streams import seed_stream, stream, stream_seed

Transform = Callable[[Tensor], Tensor] | BatchTransform
Values = dict[str, Tensor]
# (x, y), or (x, y, what is known of the teacher); y: (B,) classes, or (B, C) shares where mixed
Batch = Sequence[Tensor | Values]
SampleKey = tuple[int, int]  # (epoch, index): the epoch travels with the index into the workers


@dataclass(frozen=True)
class Samples:
    """Labelled samples, in memory, in one array on a disk, or as files.

    Attributes:
        x: (N, C, *size), uint8 or float; or N files, decoded when a batch needs them.
        y: (N,) int64 class indices.
        groups: (N,) int64 subject of each sample, where there are subjects.
    """

    x: Tensor | OnDisk | Sequence[Path | Packed]
    y: Tensor
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> "Samples":
        """The samples on a device; they are no files."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def subset(self, indices: Tensor) -> "Samples":
        """The samples at ``indices``, in that order."""
        if isinstance(self.x, Tensor):
            x = self.x[indices]
        elif isinstance(self.x, OnDisk):
            x = self.x.subset(indices)
        else:
            x = [self.x[i] for i in indices.tolist()]
        groups = None if self.groups is None else self.groups[indices]
        return replace(self, x=x, y=self.y[indices], groups=groups)


@dataclass(frozen=True)
class Views:
    """A fixed number of ways in which every sample is augmented, so that an answer can be kept.

    Epoch e shows view e modulo ``count``; view and sample alone say how a sample is augmented.

    Attributes:
        count: V.
        seed: of the augmentation.
        known: (view, indices of samples) -> what is known of them beforehand, a batch of each.
    """

    count: int
    seed: int
    known: Callable[[int, Tensor], Values] | None = None


class BadImage(UserError):
    """A file that cannot be decoded; ``on_bad_image=skip`` leaves it out of its batch."""


class SampleSet(Dataset):
    """Samples as ready batches.

    Args:
        samples: what to draw from.
        seed: of the augmentation and mixing streams.
        decode: path -> (C, H, W) uint8, for samples that are files.
        transform: (C, *size) -> (C, *size) of one size for all, or a ``BatchTransform``; None for
            samples used as they are.
        mixing: (x, y) -> (mixed x, (B, C) label distributions), for a whole batch.
        skip_bad: leave undecodable files out, with a warning, instead of raising.
        views: augment by these, and not anew each epoch.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        seed: int,
        decode: Callable[[Path], Tensor] | None = None,
        transform: Transform | None = None,
        mixing: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        skip_bad: bool = False,
        views: Views | None = None,
    ) -> None:
        self.samples = samples
        self.seed = seed
        self.decode = decode
        self.transform = transform
        self.mixing = mixing
        self.skip_bad = skip_bad
        self.views = views

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        x, y, *_ = self.__getitems__([key])
        return x[0], y[0]

    def __getitems__(self, keys: Sequence[SampleKey]) -> Batch:
        indices = torch.tensor([index for _, index in keys])
        if self.can_be_resident:
            return self.batch(keys[0][0], indices)
        # Transforms draw from the global generator: give it to them seeded, and give it back.
        with torch.random.fork_rng(devices=[]):
            images, kept = [], []
            for position, key in enumerate(keys):
                image = self._one(*key)
                if image is not None:
                    images.append(image)
                    kept.append(position)
        if not images:
            raise UserError("no image of a whole batch could be read (data.root=…)")
        return self._finished(torch.stack(images), keys[0][0], indices[kept], keys[0][1])

    @property
    def can_be_resident(self) -> bool:
        """Whether batches are made of one array by functions of whole batches."""
        takes_batches = self.transform is None or isinstance(self.transform, BatchTransform)
        return isinstance(self.samples.x, Tensor | OnDisk) and takes_batches

    def batch(self, epoch: int, indices: Tensor, on_device: Tensor | None = None) -> Batch:
        """The samples at ``indices``, where they can be resident.

        Args:
            on_device: ``indices`` where the samples are, if that is not where these are.
        """
        places = indices if on_device is None else on_device
        x = self.samples.x[places]
        if self.transform is not None:
            x = self.transform(x, Draws(self._stream_of(epoch), places))
        return self._finished(x, epoch, indices, int(indices[0]), places)

    def _finished(
        self, x: Tensor, epoch: int, indices: Tensor, first: int, places: Tensor | None = None
    ) -> Batch:
        """The batch of transformed samples: labelled, mixed, with what is known of them."""
        where = indices if places is None else places
        y = self.samples.y[where]
        if self.mixing is not None:
            with torch.random.fork_rng(devices=[]):
                seed_stream(self.seed, "mixing", epoch, first)
                x = x.float() / 255 if x.dtype == torch.uint8 else x
                x, y = self.mixing(x, y)
        if self.views is not None and self.views.known is not None:
            return x, y, self.views.known(epoch % self.views.count, where)
        return x, y

    def _one(self, epoch: int, index: int) -> Tensor | None:
        x = self.samples.x[index]
        if not isinstance(x, Tensor):
            try:
                x = self.decode(x)
            except BadImage as error:
                if not self.skip_bad:
                    raise
                warnings.warn(f"left out: {error}", stacklevel=2)
                return None
        if isinstance(self.transform, BatchTransform):
            draws = Draws(self._stream_of(epoch), torch.tensor([index]))
            return self.transform(x.unsqueeze(0), draws).squeeze(0)
        if self.transform is not None:
            seed_stream(*self._name_of(epoch), index)
            x = self.transform(x)
        return x

    def _name_of(self, epoch: int) -> tuple[int | str, ...]:
        """Of the stream that the augmentation of an epoch is drawn from."""
        if self.views is None:
            return self.seed, "augmentation", epoch
        return self.views.seed, "view", epoch % self.views.count

    def _stream_of(self, epoch: int) -> int:
        return stream_seed(*self._name_of(epoch))


class EpochOrder(Sampler[SampleKey]):
    """The order of one rank's samples; ``set_epoch`` (called by Lightning) turns to the next.

    With ``shuffle`` every global batch is cut from one permutation of all samples and dealt out
    over the ranks, so the gradient of a global batch does not depend on how many ranks there are;
    the incomplete last batch is dropped. Without it, samples stand in order and every sample
    appears once, on one rank: nothing is padded, so nothing is counted twice.
    """

    def __init__(
        self, num_samples: int, batch_size: int, *, seed: int, shuffle: bool, rank: int, ranks: int
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.ranks = ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def indices(self) -> Tensor:
        """This rank's samples, in their order."""
        if not self.shuffle:
            return torch.arange(self.num_samples)[self.rank :: self.ranks]
        order = torch.randperm(self.num_samples, generator=stream(self.seed, "order", self.epoch))
        whole = self.num_samples // self.batch_size * self.batch_size
        return order[:whole].view(-1, self.batch_size)[:, self.rank :: self.ranks].flatten()

    def __iter__(self) -> Iterator[SampleKey]:
        return ((self.epoch, index) for index in self.indices().tolist())

    def __len__(self) -> int:
        if self.shuffle:
            return self.num_samples // self.batch_size * self.batch_size // self.ranks
        return len(range(self.rank, self.num_samples, self.ranks))


def as_is(batch: Batch) -> Batch:
    """The collate function of batches that are made whole."""
    return batch


def make_loader(
    dataset: SampleSet,
    batch_size: int,
    *,
    shuffle: bool,
    rank: int = 0,
    ranks: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    device: torch.device | None = None,
) -> "DataLoader | ResidentLoader":
    """The batches of ``dataset``; ``batch_size`` is global, each rank loads its share of it.

    Args:
        device: hold the samples there; None: a DataLoader.
    """
    order = EpochOrder(
        len(dataset), batch_size, seed=dataset.seed, shuffle=shuffle, rank=rank, ranks=ranks
    )
    size = max(1, batch_size // ranks)
    if device is not None:
        return ResidentLoader(dataset, order, size, device)
    return DataLoader(
        dataset,
        batch_sampler=BatchSampler(order, size, drop_last=False),
        collate_fn=as_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # or it would draw from the global generator every epoch
    )


class ResidentLoader:
    """The batches of samples that lie on a device, made there: nothing is copied to it but indices.

    The same batches as ``make_loader`` gives, to the last bit, where mixing draws the same.

    Args:
        dataset: ``can_be_resident``; its samples are copied to the device.
        order: of this rank.
        batch_size: of this rank.
        device: of the net.
    """

    def __init__(
        self, dataset: SampleSet, order: EpochOrder, batch_size: int, device: torch.device
    ) -> None:
        assert dataset.can_be_resident
        self.dataset = copy.copy(dataset)
        self.dataset.samples = dataset.samples.to(device)
        # as a DataLoader has it: here Lightning finds what it turns to the next epoch
        self.batch_sampler = BatchSampler(order, batch_size, drop_last=False)
        self.device = device

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        order, size = self.batch_sampler.sampler, self.batch_sampler.batch_size
        indices = order.indices()
        if not len(indices):
            return
        there = indices.to(self.device, non_blocking=True)
        for here, on_device in zip(indices.split(size), there.split(size), strict=True):
            yield self.dataset.batch(order.epoch, here, on_device)
