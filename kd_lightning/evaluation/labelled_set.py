"""Labelled samples for students that were trained earlier, in the form that each student takes.

Dimensions: N samples, B batch, C classes or channels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kd_lightning.base.errors import UserError
from kd_lightning.base.words import shorten
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.batches import Samples, SampleSet
from kd_lightning.data.loading.disk_array import DiskArray
from kd_lightning.data.loading.loaders import make_loader
from kd_lightning.data.loading.resizing import to_channels
from kd_lightning.evaluation.metrics import predict

Transform = Callable[[Tensor], Tensor]
Advance = Callable[[int], Any]
SPLITS = ("test", "val", "train", "all")


@dataclass(frozen=True)
class Form:
    """The samples that a student takes.

    Attributes:
        kind: ``image`` or ``series``.
        channels: of a sample.
        size: side of an image, length of a series.
        transform: of a decoded image of any size.
    """

    kind: str
    channels: int
    size: int
    transform: Transform

    @property
    def shape(self) -> list[int]:
        return [self.channels, *[self.size] * (2 if self.kind == "image" else 1)]


@dataclass(frozen=True)
class Subject:
    """A student that is evaluated.

    Attributes:
        name: in the tables.
        source: its file, or its run.
        net: raw input -> ``ModelOutput``.
        class_names: one for each logit.
        form: the samples that it takes.
        trained_on: name of its data set and the fingerprint of the data.
        exif: whether it saw photographs turned as their tag says; None: it is not known.
    """

    name: str
    source: str
    net: nn.Module
    class_names: Sequence[str]
    form: Form
    trained_on: tuple[str | None, str | None]
    exif: bool | None = None


@dataclass(frozen=True)
class LabelledSet:
    """The samples of an evaluation, in a fixed order.

    Attributes:
        data: the data set, after ``setup``.
        name: of the data set.
        split: ``test``, ``val``, ``train`` or ``all``.
        samples: of the split.
    """

    data: ClassificationData
    name: str
    split: str
    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def subset(self, indices: Int[Tensor, " K"]) -> "LabelledSet":
        return replace(self, samples=self.samples.subset(indices))

    def loader(self, form: Form, corrupt: Transform | None = None, seed: int = 0) -> DataLoader:
        """Batches (x, y) for a student; y are the labels of the data set.

        Args:
            corrupt: is applied to each sample in the student's form. It may draw from torch's
                global generator, whose state follows from ``seed`` and the sample.
        """
        steps = [step for step in (fitting(self, form), corrupt) if step is not None]
        samples = SampleSet(
            self.samples,
            seed=seed,
            decode=self.data.decode,
            transform=Steps(tuple(steps)) if steps else None,
            skip_bad=self.data.skip_bad,
        )
        return make_loader(
            samples, self.data.batch_size, shuffle=False, num_workers=self.data.num_workers
        )


@dataclass(frozen=True)
class Steps:
    """Transforms of a sample, one after the other."""

    steps: tuple[Transform, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


def take_split(data: ClassificationData, name: str, split: str) -> LabelledSet:
    """The samples of ``split``, one of ``SPLITS``.

    Raises:
        UserError: the data set has no val part, or its parts cannot be joined.
    """
    if split == "all":
        return LabelledSet(data, name, split, join([p for p in data.parts.values() if p]))
    samples = data.parts[split]
    if samples is None:
        raise UserError("these data have no val part: choose split=test, or data.val_fraction=…")
    return LabelledSet(data, name, split, samples)


def join(parts: Sequence[Samples]) -> Samples:
    """All samples of several parts, without their subjects."""
    y = torch.cat([part.y for part in parts])
    if all(isinstance(part.x, Tensor) for part in parts):
        return Samples(torch.cat([part.x for part in parts]), y)
    if all(isinstance(part.x, list) for part in parts):
        return Samples([file for part in parts for file in part.x], y)
    raise UserError("split=all cannot join prepared images: evaluate their folders of image files")


def shape_of(labelled: LabelledSet) -> list[int | None]:
    """The shape of a sample: the sides are None for files, whose sizes differ."""
    x = labelled.samples.x
    if isinstance(x, Tensor):
        return list(x.shape[1:])
    side = x.file_shape[1] if isinstance(x, DiskArray) else None
    return [labelled.data.channels, side, side]


def fitting(labelled: LabelledSet, form: Form) -> Transform | None:
    """What brings a sample into the form that a student takes; None: it has this form.

    Raises:
        UserError: it cannot be brought into this form.
    """
    shape = shape_of(labelled)
    if shape == form.shape:
        return None
    expected = f"the student takes {describe(form.shape)}, the data {labelled.name} have"
    if form.kind == "series" or len(shape) != 3:
        raise UserError(f"{expected} {describe(shape)}: choose other data (data=…)")
    if shape[0] != form.channels and {shape[0], form.channels} != {1, 3}:
        raise UserError(f"{expected} images of {shape[0]} channels: choose other data (data=…)")
    if shape[1:] == form.shape[1:]:  # it may have been resized already, and is not cropped again
        return partial(to_channels, channels=form.channels)
    return form.transform


def describe(shape: Sequence[int | None]) -> str:
    if len(shape) == 2:
        return f"series of {shape[0]} channels x {shape[1]} values"
    if None in shape:
        return "images of any size"
    return f"images of {' x '.join(map(str, shape))}"


def note_on_form(labelled: LabelledSet, form: Form) -> list[str]:
    """A sentence on how in-memory images are changed for a student; none if they are not."""
    shape = shape_of(labelled)
    if None in shape or fitting(labelled, form) is None:
        return []
    return [
        f"{labelled.name}: the {describe(shape)} (channels, height, width) become "
        f"{' x '.join(map(str, form.shape))}, as the student takes them."
    ]


def labels_of(
    subject: Subject, labels: Int[Tensor, " N"], class_names: Sequence[str]
) -> Int[Tensor, " N"]:
    """The labels of the data as indices of the student's classes, which are found by their names.

    Args:
        class_names: of the data. Those without samples need not be the student's.

    Raises:
        UserError: the data have samples of a class that the student has not.
    """
    place = {name: index for index, name in enumerate(subject.class_names)}
    present = present_classes(labels, class_names)
    if extra := [name for name in present if name not in place]:
        missing = absent_classes(subject, present)
        lack = f", and the data lack {shorten(missing)}" if missing else ""
        raise UserError(
            f"every class of the data must be one of {subject.name}'s, by name: "
            f"{subject.name} does not know {shorten(extra)}{lack} (data=…)"
        )
    return torch.tensor([place.get(name, -1) for name in class_names])[labels]


def present_classes(labels: Int[Tensor, " N"], class_names: Sequence[str]) -> list[str]:
    """Those of ``class_names`` that have samples, in their order."""
    return [class_names[index] for index in labels.unique().tolist()]


def absent_classes(subject: Subject, present: Sequence[str]) -> list[str]:
    """The classes of the student that are not among those of the data."""
    return [name for name in subject.class_names if name not in set(present)]


def note_on_classes(labelled: LabelledSet, subjects: Sequence[Subject]) -> list[str]:
    """A sentence for each choice of classes that the data lack; none if they have all."""
    present = present_classes(labelled.samples.y, labelled.data.class_names)
    absent = {tuple(absent_classes(subject, present)) for subject in subjects} - {()}
    return [
        f"{labelled.name} has no samples of {shorten(each)}: a prediction of such a class "
        "counts as wrong."
        for each in sorted(absent)
    ]


def by_form(subjects: Iterable[Subject]) -> list[list[Subject]]:
    """Groups of students that take the same samples."""
    order: dict[Form, int] = {}
    numbered = [(order.setdefault(s.form, len(order)), s) for s in subjects]
    numbered.sort(key=lambda pair: pair[0])
    return [[s for _, s in group] for _, group in groupby(numbered, key=lambda pair: pair[0])]


def predict_all(
    subjects: Sequence[Subject],
    labelled: LabelledSet,
    device: torch.device,
    advance: Advance,
    corrupt: Transform | None = None,
    seed: int = 0,
) -> tuple[Mapping[str, Float[Tensor, "N C"]], Int[Tensor, " N"]]:
    """The logits of each student, by its name, and the labels of the data.

    Args:
        advance: is told of each number of samples that are done.
        corrupt, seed: see ``LabelledSet.loader``.
    """
    logits: dict[str, Tensor] = {}
    for group in by_form(subjects):
        loader = labelled.loader(group[0].form, corrupt, seed)
        nets = {subject.name: subject.net for subject in group}
        predicted, labels = predict(nets, counted(loader, advance), device=device)
        logits |= predicted
    return {subject.name: logits[subject.name] for subject in subjects}, labels


def counted(loader: Iterable, advance: Advance) -> Iterator:
    for batch in loader:
        yield batch
        advance(len(batch[1]))
