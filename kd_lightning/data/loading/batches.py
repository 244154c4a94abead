"""From samples to batches: decoding, augmentation and mixing, each with its own random stream.

Augmentation is determined by (seed, epoch, sample), mixing by (seed, epoch, first sample of the
batch). Neither depends on workers, ranks, or other code that draws random numbers. A batch is made
in one call (``__getitems__``), so data in one tensor are indexed once for a whole batch, or once
for several batches.
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
from kd_lightning.data.augmentation import BatchTransform
from kd_lightning.data.loading.disk_array import DiskArray
from kd_lightning.data.loading.packed_files import PackedFile
from kd_lightning.data.loading.sample_random import PerSampleRandom

Transform = Callable[[Tensor], Tensor] | BatchTransform
Values = dict[str, Tensor]
# (x, y) or (x, y, values); y: (B,) classes, or (B, C) class shares if mixed. Values are cached
# teacher outputs, the ``index`` of each sample, and what a mixed batch is made of: ``partner`` and
# ``share`` as in ``mix_with_sources``, and, where no outputs are cached, the ``clean`` samples.
Batch = Sequence[Tensor | Values]
FILES_AT_ONCE = 8  # files that are decoded and transformed together; limits memory
SampleKey = tuple[int, int]  # (epoch or view, index): workers learn the epoch from the key


@dataclass(frozen=True)
class Samples:
    """Labelled samples: a tensor in memory, an array on disk, or a list of files.

    Attributes:
        x: (N, C, *size), uint8 or float; or N files, which are decoded when a batch needs them.
        y: (N,) int64 class indices.
        groups: (N,) int64 subject of each sample; None: there are no subjects.
    """

    x: Tensor | DiskArray | Sequence[Path | PackedFile]
    y: Tensor
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> "Samples":
        """The samples on ``device``. Not for samples that are files."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def subset(self, indices: Tensor) -> "Samples":
        """The samples at ``indices``, in that order."""
        if isinstance(self.x, Tensor):
            x = self.x[indices]
        elif isinstance(self.x, DiskArray):
            x = self.x.subset(indices)
        else:
            x = [self.x[i] for i in indices.tolist()]
        groups = None if self.groups is None else self.groups[indices]
        return replace(self, x=x, y=self.y[indices], groups=groups)


@dataclass(frozen=True)
class Views:
    """A fixed number of augmented views of each sample, so that teacher outputs can be cached.

    Epoch e uses view e modulo ``count``. The augmentation of a sample depends only on ``seed``, the
    view and the sample.

    Attributes:
        count: number of views, V.
        seed: seed of the augmentation.
        cached: function (view, sample indices) -> cached teacher outputs, a batch of each; None:
            nothing is cached.
    """

    count: int
    seed: int
    cached: Callable[[int, Tensor], Values] | None = None


class BadImage(UserError):
    """A file cannot be decoded. With ``on_bad_image=skip`` it is left out of its batch.

    Attributes:
        reason: why; the message also has the name of the file, and ``ADVICE``.
    """

    ADVICE = " (repair it, or data.on_bad_image=skip)"

    # a loading process hands on the message alone
    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class SampleSet(Dataset):
    """A Dataset that returns whole batches of samples.

    Args:
        samples: the samples.
        seed: seed of the augmentation and mixing streams.
        decode: path -> (C, H, W) uint8, for samples that are files.
        transform: a ``BatchTransform``, or a function of one sample (C, *size) -> (C, *size) whose
            results all have the same size; None: samples are used unchanged.
        mixing: function of a whole batch, (x, y) -> (mixed x, (B, C) label distributions), or with
            a third result as of ``mix_with_sources``.
        skip_bad: whether files that cannot be decoded are left out with a warning.
        views: augmentation with a fixed number of views; None: each epoch augments anew.
        with_indices: whether batches also hold the index of each sample.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        seed: int,
        decode: Callable[[Path], Tensor] | None = None,
        transform: Transform | None = None,
        mixing: Callable[[Tensor, Tensor], Batch] | None = None,
        skip_bad: bool = False,
        views: Views | None = None,
        with_indices: bool = False,
    ) -> None:
        self.samples = samples
        self.seed = seed
        self.decode = decode
        self.transform = transform
        self.mixing = mixing
        self.skip_bad = skip_bad
        self.views = views
        self.with_indices = with_indices
        self.may_be_empty = False  # whether a batch without a file that can be read is None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        x, y, *_ = self.__getitems__([key])
        return x[0], y[0]

    def __getitems__(self, keys: Sequence[SampleKey]) -> Batch | None:
        indices = torch.tensor([index for _, index in keys])
        if self.can_be_resident:
            (batch,) = self.batches(keys[0][0], indices, len(indices))
            return batch
        transformed, kept = [], []
        # Transforms of torchvision draw from the global generator: seed it here, restore it after.
        with torch.random.fork_rng(devices=[]):
            for some_indices in indices.split(FILES_AT_ONCE):
                decoded = [(index, self._read_sample(index)) for index in some_indices.tolist()]
                if decoded := [(index, x) for index, x in decoded if x is not None]:
                    transformed.append(self._transform_samples(decoded, keys[0][0]))
                    kept += [index for index, _ in decoded]
        if not transformed and self.may_be_empty:
            return None
        if not transformed:
            raise UserError(
                "no image of a batch could be decoded: remove the files that the warnings name "
                "(data.root=…)"
            )
        x, indices = torch.cat(transformed), torch.tensor(kept)
        return self._finish_batch(x, self.samples.y[indices], keys[0][0], indices, indices)

    @property
    def can_be_resident(self) -> bool:
        """Whether the samples are one array and the transform, if any, takes whole batches."""
        takes_batches = self.transform is None or isinstance(self.transform, BatchTransform)
        return isinstance(self.samples.x, Tensor | DiskArray) and takes_batches

    def batches(
        self, epoch: int, indices: Tensor, size: int, on_device: Tensor | None = None
    ) -> Iterator[Batch]:
        """Batches of ``size`` of the samples at ``indices``, which are gathered in one operation.

        Only if ``can_be_resident``.

        Args:
            on_device: ``indices`` on the device of the samples; None: they are there already.
        """
        device_indices = indices if on_device is None else on_device
        x, y = self.samples.x, self.samples.y.index_select(0, device_indices)
        x = x.index_select(0, device_indices) if isinstance(x, Tensor) else x[device_indices]
        if self.transform is not None:
            x = self.transform(x, PerSampleRandom(self._stream_seed(epoch), device_indices))
        if self.mixing is None and self.views is None and not self.with_indices:
            yield from zip(x.split(size), y.split(size), strict=True)
            return
        pieces = zip(*(t.split(size) for t in (x, y, indices, device_indices)), strict=True)
        for batch_x, batch_y, batch_indices, batch_device_indices in pieces:
            yield self._finish_batch(batch_x, batch_y, epoch, batch_indices, batch_device_indices)

    def _finish_batch(
        self, x: Tensor, y: Tensor, epoch: int, indices: Tensor, device_indices: Tensor
    ) -> Batch:
        """Mixes a batch of transformed samples, and adds the values that belong to it."""
        values: Values = {"index": device_indices} if self.with_indices else {}
        if self.mixing is not None:
            with torch.random.fork_rng(devices=[]):
                seed_stream(self.seed, "mixing", epoch, int(indices[0]))
                clean = x.float() / 255 if x.dtype == torch.uint8 else x
                x, y, *sources = self.mixing(clean, y)
                values |= {"clean": clean, **sources[0]} if sources else {}
        if self.views is not None and self.views.cached is not None:
            values.pop("clean", None)  # what the teacher says of them is known
            values |= self.views.cached(epoch % self.views.count, device_indices)
        return (x, y, values) if values else (x, y)

    def _read_sample(self, index: int) -> Tensor | None:
        """A sample (C, *size); None if its file cannot be decoded and is left out."""
        x = self.samples.x[index]
        if isinstance(x, Tensor):
            return x
        try:
            return self.decode(x)
        except BadImage as error:
            if not self.skip_bad:
                raise
            warnings.warn(f"left out: {str(error).removesuffix(error.ADVICE)}", stacklevel=2)
            return None

    def _transform_samples(self, samples: Sequence[tuple[int, Tensor]], epoch: int) -> Tensor:
        """A transformed batch of samples, which are given as (index, x)."""
        if isinstance(self.transform, BatchTransform) and self.transform.takes_any_size:
            indices, images = zip(*samples, strict=True)
            rng = PerSampleRandom(self._stream_seed(epoch), torch.tensor(indices))
            return self.transform(images, rng)
        return torch.stack([self._transform_one(x, epoch, index) for index, x in samples])

    def _transform_one(self, x: Tensor, epoch: int, index: int) -> Tensor:
        if isinstance(self.transform, BatchTransform):
            rng = PerSampleRandom(self._stream_seed(epoch), torch.tensor([index]))
            return self.transform(x.unsqueeze(0), rng).squeeze(0)
        if self.transform is not None:
            seed_stream(*self._stream_name(epoch), index)
            x = self.transform(x)
        return x

    def _stream_name(self, epoch: int) -> tuple[int | str, ...]:
        """The name of the random stream that augments an epoch."""
        if self.views is None:
            return self.seed, "augmentation", epoch
        return self.views.seed, "view", epoch % self.views.count

    def _stream_seed(self, epoch: int) -> int:
        return stream_seed(*self._stream_name(epoch))
