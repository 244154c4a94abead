"""``data.unlabeled``: samples without labels beside the labeled ones of each training step.

A batch is then (x, y) with more rows in ``x`` than in ``y``: the labeled samples come first, and
the rows after them have no label. An epoch is one pass over the labeled samples. The unlabeled ones
go on where the epoch before has stopped, in an order that follows from (seed, pass).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_lightning.base.files import printable
from kd_lightning.base.streams import stream_seed
from kd_lightning.data.loading.batches import Batch, Samples, SampleSet, Transform
from kd_lightning.data.loading.leaks import MAX_FILES, copied_files, row_hashes
from kd_lightning.data.loading.loaders import ResidentLoader


@dataclass(frozen=True)
class Unlabeled:
    """Samples whose labels are not used.

    Attributes:
        samples: every label is -1.
        name: of their data set or folder.
        count: of unlabeled samples in a step, over all ranks.
        fingerprint: hash of the content.
        transform: brings a sample to the form of the labeled ones, and augments it.
        decode: as that of a data set of files.
        skip_bad: whether files that cannot be decoded are left out with a warning.
    """

    samples: Samples
    name: str
    count: int
    fingerprint: str
    transform: Transform
    decode: Callable[[Any], Tensor] | None = None
    skip_bad: bool = False

    def sample_set(self, seed: int) -> SampleSet:
        """The samples with random streams of their own."""
        return SampleSet(
            self.samples,
            seed=stream_seed(seed, "unlabeled"),
            decode=self.decode,
            transform=self.transform,
            skip_bad=self.skip_bad,
        )


class WithUnlabeled:
    """The batches of ``labeled``, each with the samples of a batch of ``unlabeled`` after its own.

    Args:
        labeled: batches (x, y).
        unlabeled: as many batches, in a ``CyclingOrder``; their labels are not used.
        device: of the run.
    """

    def __init__(
        self,
        labeled: DataLoader | ResidentLoader,
        unlabeled: DataLoader | ResidentLoader,
        device: torch.device | None = None,
    ) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.device = torch.device("cpu") if device is None else device
        self.batch_sampler = labeled.batch_sampler  # Lightning sets the epoch of its sampler

    def __len__(self) -> int:
        return len(self.labeled)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.batch_sampler.sampler.epoch
        self.unlabeled.batch_sampler.sampler.set_epoch(epoch)
        for (x, y), (more, _) in zip(self.labeled, self.unlabeled, strict=True):
            yield joined(x, more, self.device), y


def joined(x: Tensor, more: Tensor, device: torch.device) -> Tensor:
    """The rows of both, on a device. Mixed images are floats, and bytes beside them become floats
    too.
    """
    # each by itself: pinned memory is copied without a wait, and joined it is no longer pinned
    x, more = (t.to(device, non_blocking=True) for t in (x, more))
    if x.dtype != more.dtype:
        x, more = (t.float() / 255 if t.dtype == torch.uint8 else t for t in (x, more))
    return torch.cat([x, more])


def without_labels(samples: Samples) -> Samples:
    return Samples(samples.x, torch.full((len(samples),), -1))


def without_copies(samples: Samples, *parts: Samples | None) -> Samples | None:
    """The samples whose content is in none of the parts; None if that cannot be told, or takes too
    long: the content is not here, the parts are of another kind, or there are too many files.
    """
    others = [part.x for part in parts if part is not None]
    if all(isinstance(x, Tensor) for x in (samples.x, *others)):
        copied = copied_rows(samples.x, others)
    elif all(isinstance(x, list) and isinstance(x[0], Path) for x in (samples.x, *others)):
        found = copied_files(list(chain.from_iterable(others)), samples.x, MAX_FILES)
        if found is None:
            return None
        names = {copy.test for copy in found}
        copied = [i for i, path in enumerate(samples.x) if printable(path) in names]
    else:
        return None
    kept = torch.ones(len(samples), dtype=torch.bool)
    kept[copied] = False
    return samples.subset(kept.nonzero().flatten()) if copied else samples


def copied_rows(x: Tensor, others: Sequence[Tensor]) -> list[int]:
    """The rows of ``x`` that are in another tensor too."""
    if x.shape[1:] != others[0].shape[1:]:
        return []
    if x.dtype != others[0].dtype:  # as in a batch of both
        x, *others = (
            one.float() / 255 if one.dtype == torch.uint8 else one.float() for one in (x, *others)
        )
    seen = {key for other in others for key in row_hashes(other)}
    return [i for i, key in enumerate(row_hashes(x)) if key in seen]
