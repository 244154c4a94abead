"""From samples to batches: decoding, augmentation and mixing, each from its named stream.

Augmentation follows from (seed, epoch, sample), mixing from (seed, epoch, first sample of the
batch): not from workers, ranks, or what else drew random numbers. Batches are made whole
(``__getitems__``), so data that fit in one tensor are indexed once a batch, or once for several.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_lightning.base.errors import UserError
from kd_lightning.base.streams import seed_stream, stream_seed
from kd_lightning.data.augmentation import BatchTransform, Draws
from kd_lightning.data.loading.disk_array import OnDisk
from kd_lightning.data.loading.packed_files import Packed

Transform = Callable[[Tensor], Tensor] | BatchTransform
Values = dict[str, Tensor]
# (x, y), or (x, y, what is known of the teacher); y: (B,) classes, or (B, C) shares where mixed
Batch = Sequence[Tensor | Values]
FEW = 8  # files whose images are transformed at once: so many, perhaps large, lie in memory
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
            (batch,) = self.batches(keys[0][0], indices, len(indices))
            return batch
        shown, read = [], []
        # Transforms draw from the global generator: give it to them seeded, and give it back.
        with torch.random.fork_rng(devices=[]):
            for few in indices.split(FEW):
                found = [(index, self._read(index)) for index in few.tolist()]
                if found := [(index, x) for index, x in found if x is not None]:
                    shown.append(self._transformed(found, keys[0][0]))
                    read += [index for index, _ in found]
        if not shown:
            raise UserError("no image of a whole batch could be read (data.root=…)")
        read = torch.tensor(read)
        return self._finished(torch.cat(shown), self.samples.y[read], keys[0][0], read, read)

    @property
    def can_be_resident(self) -> bool:
        """Whether batches are made of one array by functions of whole batches."""
        takes_batches = self.transform is None or isinstance(self.transform, BatchTransform)
        return isinstance(self.samples.x, Tensor | OnDisk) and takes_batches

    def batches(
        self, epoch: int, indices: Tensor, size: int, on_device: Tensor | None = None
    ) -> Iterator[Batch]:
        """The samples at ``indices``, ``size`` at a time, gathered at once; if ``can_be_resident``.

        Args:
            on_device: ``indices`` where the samples are, if that is not where these are.
        """
        places = indices if on_device is None else on_device
        x, y = self.samples.x, self.samples.y.index_select(0, places)
        x = x.index_select(0, places) if isinstance(x, Tensor) else x[places]
        if self.transform is not None:
            x = self.transform(x, Draws(self._stream_of(epoch), places))
        if self.mixing is None and self.views is None:
            yield from zip(x.split(size), y.split(size), strict=True)
            return
        for *batch, here, there in zip(
            *(e.split(size) for e in (x, y, indices, places)), strict=True
        ):
            yield self._finished(*batch, epoch, here, there)

    def _finished(self, x: Tensor, y: Tensor, epoch: int, indices: Tensor, places: Tensor) -> Batch:
        """The batch of transformed samples: mixed, with what is known of them."""
        if self.mixing is not None:
            with torch.random.fork_rng(devices=[]):
                seed_stream(self.seed, "mixing", epoch, int(indices[0]))
                x = x.float() / 255 if x.dtype == torch.uint8 else x
                x, y = self.mixing(x, y)
        if self.views is not None and self.views.known is not None:
            return x, y, self.views.known(epoch % self.views.count, places)
        return x, y

    def _read(self, index: int) -> Tensor | None:
        """A sample (C, *size); None where it is left out."""
        x = self.samples.x[index]
        if isinstance(x, Tensor):
            return x
        try:
            return self.decode(x)
        except BadImage as error:
            if not self.skip_bad:
                raise
            warnings.warn(f"left out: {error}", stacklevel=2)
            return None

    def _transformed(self, found: Sequence[tuple[int, Tensor]], epoch: int) -> Tensor:
        """The batch of some samples, each with its index."""
        if isinstance(self.transform, BatchTransform) and self.transform.takes_any_size:
            indices, samples = zip(*found, strict=True)
            return self.transform(samples, Draws(self._stream_of(epoch), torch.tensor(indices)))
        return torch.stack([self._transformed_by_itself(x, epoch, index) for index, x in found])

    def _transformed_by_itself(self, x: Tensor, epoch: int, index: int) -> Tensor:
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
