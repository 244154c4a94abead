"""From samples' batches to an epoch: the order, and who makes the batches.

Order follows from (seed, epoch): not from workers, ranks, or what else drew random numbers.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler

from kd_lightning.base.streams import stream
from kd_lightning.data.loading.batches import Batch, SampleKey, SampleSet

# so many bytes of samples are gathered at once, where batches are smaller: few enough to lie in a
# processor's cache until they are used
BLOCK = 2**20


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
        # small batches are gathered several at once: of them the gathering costs most
        bytes_of_batch = dataset.samples.x[:1].nbytes * batch_size
        self.block = batch_size * max(1, BLOCK // max(1, bytes_of_batch))

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        order, size = self.batch_sampler.sampler, self.batch_sampler.batch_size
        indices = order.indices()
        if not len(indices):
            return
        there = indices.to(self.device, non_blocking=True)
        for here, on_device in zip(indices.split(self.block), there.split(self.block), strict=True):
            yield from self.dataset.batches(order.epoch, here, size, on_device)
