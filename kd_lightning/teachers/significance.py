"""Is a teacher better than chance, and does a change make it better? Exact tests of predictions.

Dimensions: N samples, C classes, R random orders of the classes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from scipy.stats import binomtest
from torch import Tensor

from kd_lightning.base.confusion import confusion_matrix
from kd_lightning.base.proportions import mcnemar_p
from kd_lightning.base.streams import stream
from kd_lightning.base.words import percent
from kd_lightning.data.loading.batches import Samples

ALPHA = 0.01  # of the test that a teacher is better than chance
# Fewer classes than this have too few orders for a test of the order of the classes.
FEW_CLASSES, ORDERS = 6, 5000
# Cohen's kappa below this number is a slight agreement (Landis and Koch 1977, table 1)
SLIGHT_AGREEMENT = 0.2
# An agreement from this number on is fair to moderate; what explains a teacher's errors reaches it.
FAIR_AGREEMENT = 0.4
# A change makes a teacher clearly better if it adds this share of right samples, and the p-value of
# the difference is below this number.
BETTER_BY, BETTER_P = 0.05, 0.001


@dataclass(frozen=True)
class Predictions:
    """The classes that a net predicts for samples of a part of the data.

    Attributes:
        part: "val" or "train".
        chosen: the samples.
        predicted, labels: class indices.
        is_random: whether they are a random choice of the part's samples.
        are_probabilities: whether the net gives probabilities in place of logits.
    """

    part: str
    chosen: Samples
    predicted: Int[Tensor, " N"]
    labels: Int[Tensor, " N"]
    is_random: bool
    are_probabilities: bool = False

    @property
    def right(self) -> Bool[Tensor, " N"]:
        return self.predicted == self.labels

    @property
    def samples(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> int:
        return int(self.right.sum())

    @property
    def accuracy(self) -> float:
        return self.correct / self.samples

    @property
    def most_frequent_class(self) -> float:
        """The share of the most frequent class: the accuracy of always guessing it."""
        return int(self.labels.bincount().max()) / self.samples

    @property
    def p_value(self) -> float:
        """That of the accuracy, against the share of the most frequent class."""
        return self._p_value_against(self.most_frequent_class)

    def _p_value_against(self, share: float) -> float:
        """One-sided, of the exact binomial test."""
        return float(binomtest(self.correct, self.samples, share, alternative="greater").pvalue)

    @property
    def kappa(self) -> float:
        return kappa(self.predicted, self.labels)

    @cached_property
    def order_p_value(self) -> float | None:
        """How often a random order of the net's classes is at least as accurate as its own order;
        None for few classes.

        Samples of one class look alike, so even a random net is right or wrong for most of a class
        at once. The binomial test takes samples for independent and finds some random nets
        significant; this test does not.
        """
        confusion = confusion_of(self.predicted, self.labels)
        if len(confusion) < FEW_CLASSES:
            return None
        luck = torch.rand(ORDERS, len(confusion), generator=stream("teacher", "orders"))
        right = confusion[luck.argsort(1), torch.arange(len(confusion))].sum(1)
        return (1 + int((right >= self.correct).sum())) / (1 + ORDERS)

    @property
    def is_like_a_random_order(self) -> bool:
        return (self.order_p_value or 0.0) >= ALPHA

    @property
    def is_near_chance(self) -> bool:
        """Whether the accuracy is not significantly above the share of the most frequent class.

        Where one class has nearly all samples, a good teacher is hardly above this share. So
        predictions that agree with the labels more than slightly, and significantly more than by
        chance, are not near it. Labels of one class only say nothing.
        """
        if self.most_frequent_class == 1 or self.p_value < ALPHA:
            return False
        agrees = self._p_value_against(expected_accuracy(self.predicted, self.labels)) < ALPHA
        return not (agrees and self.kappa >= SLIGHT_AGREEMENT)

    def record(self) -> dict[str, Any]:
        """Plain values for ``environment.json``."""
        names = ("accuracy", "correct", "samples", "most_frequent_class", "p_value", "kappa",
                 "order_p_value")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def in_words(self) -> str:
        """Such as "76.8 % on val (384 of 500 samples)"."""
        some = "random samples" if self.is_random else "samples"
        counts = f"{self.correct} of {self.samples} {some}"
        return f"{percent(self.accuracy, 1)} on {self.part} ({counts})"


def confusion_of(predicted: Int[Tensor, " N"], labels: Int[Tensor, " N"]) -> Int[Tensor, "C C"]:
    """The confusion matrix of all classes up to the highest that occurs."""
    num_classes = int(max(predicted.max(), labels.max())) + 1
    return torch.from_numpy(confusion_matrix(predicted, labels, num_classes))


def expected_accuracy(predicted: Int[Tensor, " N"], labels: Int[Tensor, " N"]) -> float:
    """That of predictions which are as frequent as these, and independent of the labels."""
    confusion = confusion_of(predicted, labels).double()
    return float(confusion.sum(0) @ confusion.sum(1)) / len(labels) ** 2


def kappa(predicted: Int[Tensor, " N"], labels: Int[Tensor, " N"]) -> float:
    """Cohen's kappa: 0 for chance, 1 if all predictions are right."""
    accuracy = float((predicted == labels).double().mean())
    chance = expected_accuracy(predicted, labels)
    return 0.0 if chance == 1 else (accuracy - chance) / (1 - chance)


def is_clearly_better(changed: Bool[Tensor, " N"], before: Bool[Tensor, " N"]) -> bool:
    """Whether a change makes a net right for more samples, by far more than chance explains.

    Args:
        changed, before: whether the net is right, for the same samples.
    """
    gained, lost = int((changed & ~before).sum()), int((before & ~changed).sum())
    return gained - lost >= BETTER_BY * len(before) and mcnemar_p(gained, lost) < BETTER_P
