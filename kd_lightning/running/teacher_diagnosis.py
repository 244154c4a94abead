"""Finds out why a teacher is often wrong: uses it in other ways on a few of the samples.

The teacher itself does not change. One thing is changed at a time, then the best change
of its input and a resize of files together.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.batches import Batch, Samples
from kd_lightning.data.loading.channel_statistics import channel_statistics
from kd_lightning.data.loading.chosen import batches_of
from kd_lightning.evaluation.metrics import predict
from kd_lightning.teacher_cache.cache import some_of
from kd_lightning.teachers import alternatives
from kd_lightning.teachers.alternatives import AS_IT_IS, Alternative, Statistics
from kd_lightning.teachers.significance import (
    BETTER_BY,
    FAIR_AGREEMENT,
    is_clearly_better,
    kappa,
)

FEW = 200  # samples on which alternatives are tried
FEWEST = 11  # fewer samples cannot show that an alternative is clearly better
BATCH = 50  # a batch of the run may not fit on the device with larger images
# Every fourth of the samples comes first; an alternative that does not help there is not tried on
# the rest.
FIRST = 4

Classes = dict[str, Int[Tensor, " N"]]  # alternative, by its words -> predicted classes


@dataclass(frozen=True)
class Place:
    """Where nets are evaluated: the device and precision of the run."""

    device: torch.device
    precision: Callable[[], AbstractContextManager]

    def logits(
        self, nets: Mapping[str, nn.Module], batches: Iterable[Batch]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The logits of each net for each sample, and the labels."""
        return predict(nets, batches, device=self.device, precision=self.precision)

    def predicted(
        self, nets: Mapping[str, nn.Module], batches: Iterable[Batch]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The class that each net predicts for each sample, and the labels."""
        logits, labels = self.logits(nets, batches)
        return {name: of_net.argmax(-1) for name, of_net in logits.items()}, labels


@dataclass(frozen=True)
class Trial:
    """An alternative, and the classes that the teacher predicts with it."""

    alternative: Alternative
    predicted: Int[Tensor, " N"]
    labels: Int[Tensor, " N"]

    @property
    def right(self) -> Bool[Tensor, " N"]:
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        return self.right.double().mean().item()

    def explains(self, before: "Trial") -> bool:
        """Whether the teacher is clearly better than ``before``, and good enough that this is no
        luck: a net without training may be right for one or two whole classes.
        """
        is_good = kappa(self.predicted, self.labels) >= FAIR_AGREEMENT
        return is_good and is_clearly_better(self.right, before.right)


class Trials:
    """Uses a teacher on samples in different ways.

    Args:
        net: in eval mode.
        samples: of ``data``.
        place: where the net is evaluated.
    """

    def __init__(
        self, net: nn.Module, data: ClassificationData, samples: Samples, place: Place
    ) -> None:
        self.net = net
        self.data = data
        self.samples = samples
        self.place = place
        self.batches = list(self._batches())  # decoded once
        self.labels = torch.cat([y for _, y in self.batches])

    def _batches(self, **changes: Any) -> Iterable[Batch]:
        size = min(BATCH, self.data.batch_size)
        return batches_of(self.data, self.samples, batch_size=size, **changes)

    def predicted(self, tried: Sequence[Alternative]) -> Classes:
        """What the teacher predicts with each alternative that it can take."""
        nets = {one.words: alternatives.applied(self.net, one) for one in tried}
        possible = [one for one in tried if self._takes_samples(nets[one.words])]
        inside = {one.words: nets[one.words] for one in possible if not one.of_data}
        found = self.place.predicted(inside, self.batches)[0] if inside else {}
        for one in possible:
            if one.of_data:
                batches = self._batches(**one.of_data)
                found |= self.place.predicted({one.words: nets[one.words]}, batches)[0]
        return found

    def right(self, predicted: Int[Tensor, " N"]) -> int:
        return int((predicted == self.labels).sum())

    def _takes_samples(self, net: nn.Module) -> bool:
        """Whether the net takes images of this size: some are built for one size only."""
        try:
            self.place.predicted({"": net}, [[part[:1] for part in self.batches[0]]])
        except Exception:  # a user's net can raise anything
            return False
        return True


def diagnose(
    net: nn.Module,
    data: ClassificationData,
    samples: Samples,
    place: Place,
    keys: Collection[str],
) -> Trial | None:
    """The way to use a teacher that is clearly better than that of the run; None: there is none.

    Args:
        net: the teacher, in eval mode.
        samples: the samples that were checked.
        keys: of the teacher in the configuration.
    """
    if len(samples) < FEWEST:
        return None
    order = torch.tensor(some_of(len(samples), FEW))
    is_first = torch.arange(len(order)) % FIRST == 0
    parts = [samples.subset(order[chosen]) for chosen in (is_first, ~is_first)]
    first, rest = (Trials(net, data, part, place) for part in parts)
    candidates = [*of_the_net(first, keys), *alternatives.resizes(data)]
    before, *found = tried_in_turn(first, rest, AS_IT_IS, candidates)
    best = max(found, key=lambda trial: trial.accuracy, default=before)
    found += [pair for pair in pairs(first, rest, best, candidates)
              if pair.accuracy >= best.accuracy + BETTER_BY]  # fmt: skip
    clear = [trial for trial in found if trial.explains(before)]
    return max(clear, key=lambda trial: trial.accuracy, default=None)


def of_the_net(trials: Trials, keys: Collection[str]) -> list[Alternative]:
    """The alternatives that change how the net prepares its input."""
    net, data = trials.net, trials.data
    if not alternatives.can_prepare(net):
        return []
    is_image = trials.batches[0][0].ndim == 4
    own = statistics_of(data, trials.batches)
    found = list(alternatives.normalizations(net.prepare, own, is_image=is_image, keys=keys))
    if is_image:
        found += alternatives.channel_orders(data.channels)
        found += alternatives.input_sizes(net.prepare, data.size, keys)
    return found


def statistics_of(data: ClassificationData, batches: Iterable[Batch]) -> Statistics:
    """Mean and std of each channel: of the train part, or for image files of these batches."""
    if isinstance(data.parts["train"].x, Tensor):
        return data.mean, data.std
    return channel_statistics(torch.cat([x for x, _ in batches]))


def tried_in_turn(
    first: Trials, rest: Trials, now: Alternative, candidates: Sequence[Alternative]
) -> list[Trial]:
    """The teacher as it is used now, and with each candidate that makes it right more often on the
    first samples. Only these are tried on the rest.
    """
    begun = first.predicted([now, *candidates])
    before = first.right(begun[now.words])
    tried = [one for one in candidates if one.words in begun]
    kept = [now, *(one for one in tried if first.right(begun[one.words]) > before)]
    ended = rest.predicted(kept)
    labels = torch.cat([first.labels, rest.labels])
    return [Trial(a, torch.cat([begun[a.words], ended[a.words]]), labels) for a in kept]


def pairs(
    first: Trials, rest: Trials, best: Trial, candidates: Sequence[Alternative]
) -> list[Trial]:
    """The best alternative together with each of the other kind: a change of the net's input with
    a resize of files, or the other way round.
    """
    now = best.alternative
    if now is AS_IT_IS or best.accuracy > 1 - BETTER_BY:
        return []
    others = [c for c in candidates if bool(c.of_data) != bool(now.of_data)]
    return tried_in_turn(first, rest, now, [now.and_also(other) for other in others])[1:]
