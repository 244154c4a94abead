"""The loaders of an epoch: the order of the samples, and the two ways to make their batches.

``make_loader`` returns a torch DataLoader, or a ``ResidentLoader`` if the samples are stored on the
device. The order is determined by (seed, epoch). It does not depend on workers, ranks, or other
code that draws random numbers.
"""

import copy
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler

from kd_lightning.base.streams import stream
from kd_lightning.data.loading.batches import Batch, SampleKey, SampleSet

# If batches are smaller than this number of bytes, several are gathered in one operation. They then
# still fit into the cache of a processor until they are used.
BYTES_AT_ONCE = 2**20


class EpochOrder(Sampler[SampleKey]):
    """The order of the samples of one rank in an epoch; Lightning calls ``set_epoch``.

    With ``shuffle``, each global batch is a slice of one permutation of all samples and is divided
    over the ranks. So the gradient of a global batch does not depend on the number of ranks. The
    incomplete last batch is dropped. Without ``shuffle``, samples are in order, and each sample
    appears exactly once, on one rank: there is no padding, so no sample is counted twice.
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

    def passes(self) -> Iterator[tuple[int, Tensor]]:
        """Numbers of passes over the samples, each with the indices of the samples of this rank
        that the epoch takes from it, in order.
        """
        if self.shuffle:
            yield self.epoch, self.batches(self.epoch)[:, self.rank :: self.ranks].flatten()
        else:
            yield self.epoch, torch.arange(self.num_samples)[self.rank :: self.ranks]

    def batches(self, number: int) -> Int[Tensor, "batches B"]:
        """The global batches of a pass."""
        order = torch.randperm(self.num_samples, generator=stream(self.seed, "order", number))
        num_used = self.num_samples // self.batch_size * self.batch_size
        return order[:num_used].view(-1, self.batch_size)

    def __iter__(self) -> Iterator[SampleKey]:
        return ((number, i) for number, indices in self.passes() for i in indices.tolist())

    def __len__(self) -> int:
        if self.shuffle:
            return self.num_samples // self.batch_size * self.batch_size // self.ranks
        return len(range(self.rank, self.num_samples, self.ranks))


class CyclingOrder(EpochOrder):
    """An order in which an epoch has a fixed number of batches, and goes on where the epoch before
    it has stopped: batch b of all is batch b modulo n of pass b // n, where n is the number of
    batches in a pass. A batch is of one pass.

    Args:
        steps: batches of an epoch.
    """

    def __init__(self, *sizes: int, steps: int, **common: int) -> None:
        super().__init__(*sizes, shuffle=True, **common)
        self.steps = steps

    def passes(self) -> Iterator[tuple[int, Tensor]]:
        start, of_pass = self.epoch * self.steps, self.num_samples // self.batch_size
        end = start + self.steps
        for number in range(start // of_pass, -(-end // of_pass)):
            first, last = (max(0, b - number * of_pass) for b in (start, end))
            yield number, self.batches(number)[first:last, self.rank :: self.ranks].flatten()

    def __len__(self) -> int:
        return self.steps * self.batch_size // self.ranks


def no_collate(batch: Batch) -> Batch:
    """The collate function for a Dataset that already returns whole batches."""
    return batch


class WithoutEmpty(DataLoader):
    """Passes over batches of which no file could be read."""

    def __iter__(self) -> Iterator[Batch]:
        return (batch for batch in super().__iter__() if batch is not None)


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
    steps: int | None = None,
) -> "DataLoader | ResidentLoader":
    """A loader of the batches of ``dataset``.

    Args:
        batch_size: global batch size; each rank loads its share of it.
        device: store the samples on this device (``ResidentLoader``); None: use a DataLoader.
        steps: batches of an epoch, in a ``CyclingOrder``; None: an epoch is one pass.
    """
    shared = {"seed": dataset.seed, "rank": rank, "ranks": ranks}
    order = (
        EpochOrder(len(dataset), batch_size, shuffle=shuffle, **shared)
        if steps is None
        else CyclingOrder(len(dataset), batch_size, steps=steps, **shared)
    )
    size = max(1, batch_size // ranks)
    if device is not None:
        return ResidentLoader(dataset, order, size, device)
    # a training step of this rank alone would make the others wait, so there it is an error
    dataset.may_be_empty = dataset.skip_bad and not shuffle
    loader = WithoutEmpty if dataset.may_be_empty else DataLoader
    return loader(
        dataset,
        batch_sampler=BatchSampler(order, size, drop_last=False),
        collate_fn=no_collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else it uses the global generator
    )


class ResidentLoader:
    """Stores the samples on a device and makes the batches there; only indices are copied to it.

    The batches are bit for bit those of the DataLoader, provided mixing draws the same numbers.

    Args:
        dataset: a Dataset with ``can_be_resident``; its samples are copied to the device.
        order: the order of this rank.
        batch_size: the batch size of this rank.
        device: the device of the network.
    """

    def __init__(
        self, dataset: SampleSet, order: EpochOrder, batch_size: int, device: torch.device
    ) -> None:
        assert dataset.can_be_resident
        self.dataset = copy.copy(dataset)
        self.dataset.samples = dataset.samples.to(device)
        # named as in a DataLoader: Lightning calls batch_sampler.sampler.set_epoch
        self.batch_sampler = BatchSampler(order, batch_size, drop_last=False)
        self.device = device
        # several small batches are gathered together, because gathering is most of their cost
        batch_bytes = dataset.samples.x[:1].nbytes * batch_size
        self.samples_at_once = batch_size * max(1, BYTES_AT_ONCE // max(1, batch_bytes))

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        for number, indices in self.batch_sampler.sampler.passes():
            if len(indices):
                yield from self._batches_of(number, indices)

    def _batches_of(self, number: int, indices: Tensor) -> Iterator[Batch]:
        device_indices = indices.to(self.device, non_blocking=True)
        pieces = (t.split(self.samples_at_once) for t in (indices, device_indices))
        for some_indices, on_device in zip(*pieces, strict=True):
            size = self.batch_sampler.batch_size
            yield from self.dataset.batches(number, some_indices, size, on_device)
