"""The teacher's confidences in an epoch, and how often the nets were right at each level.

Counted on the device and summed over all ranks, on the training batches as the students see them:
augmented, mixed, with dropout.
Dimensions: B batch, C classes, N nets (the teacher, then the students), M bins.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from kd_lightning.uncertainty.confidence import Labels, hard_gate
from kd_lightning.uncertainty.reliability import equal_width

NUM_BINS = 20
Bins = list[dict[str, float | None]]


class ConfidenceSummary(NamedTuple):
    """The result of one epoch.

    Attributes:
        scalars: ``confidence/mean|min|max``, before the gate; ``confidence/share_kept``, of samples
            at or above the threshold; ``weight/mean|min|max``, after the gate;
            ``agreement/teacher_<student>`` and ``agreement/<student>_<student>``, the share of
            samples to which the two give the same class. All in [0, 1].
        bins: of equal width over [0, 1], above ``low`` and up to ``high``, 0 in the first. Each has
            its ``share`` of the samples, and ``<net>_accuracy`` on them, None where there are none.
    """

    scalars: dict[str, Tensor]
    bins: Bins


class Counts(NamedTuple):
    """The counts of a batch.

    Attributes:
        total, least, most: (2,) of confidence, and of weight.
        kept: samples at or above the threshold.
        agreed: (N (N - 1) / 2,) samples to which the two nets of each pair give the same class.
        counts: (1 + N, M) samples in each bin, then those that each net gets right.
    """

    total: Tensor
    least: Tensor
    most: Tensor
    kept: Tensor
    agreed: Tensor
    counts: Tensor


def counted(
    confidence: Float[Tensor, "B"],
    weight: Float[Tensor, "B"],
    logits: Mapping[str, Float[Tensor, "B C"]],
    labels: Labels,
    *,
    threshold: float,
    num_bins: int = NUM_BINS,
) -> Counts:
    """Counts of a batch, for ``ConfidenceLog.update``.

    Args:
        confidence: of the teacher, before the gate.
        weight: after the gate.
        logits: of the teacher, which comes first, and of every student.
        labels: class indices, or distributions, whose heaviest class is the right one.
        threshold: of the gate.
        num_bins: M.
    """
    values = torch.stack([confidence, weight])
    classes = [of_net.argmax(dim=1) for of_net in logits.values()]
    agreed = [(a == b).sum() for a, b in combinations(classes, 2)]
    right_class = labels.argmax(dim=1) if labels.ndim == 2 else labels
    right = [torch.ones_like(right_class, dtype=torch.bool)]
    right += [of_net == right_class for of_net in classes]
    # no one_hot: it waits for the device
    bins = torch.arange(num_bins, device=confidence.device)
    in_bin = equal_width(confidence, num_bins).unsqueeze(1) == bins
    return Counts(
        total=values.sum(dim=1),
        least=values.amin(dim=1),
        most=values.amax(dim=1),
        kept=hard_gate(confidence, threshold).long().sum(),
        agreed=torch.stack(agreed),
        counts=(torch.stack(right).unsqueeze(2) & in_bin).sum(dim=1),
    )


class ConfidenceLog(Metric):
    """Sums of an epoch's batches; ``compute`` gives their ``ConfidenceSummary``.

    Args:
        students: their keys, in the order of the logits that are counted.
        num_bins: M.
    """

    full_state_update = False

    def __init__(self, students: Iterable[str], *, num_bins: int = NUM_BINS) -> None:
        super().__init__()
        self.nets = ("teacher", *students)
        self.pairs = list(combinations(self.nets, 2))
        self.num_bins = num_bins
        # of confidence, and of weight
        self.add_state("total", torch.zeros(2), dist_reduce_fx="sum")
        self.add_state("least", torch.full((2,), torch.inf), dist_reduce_fx="min")
        self.add_state("most", torch.full((2,), -torch.inf), dist_reduce_fx="max")
        # whole numbers: in float32 a count stands still at 2^24
        self.add_state("kept", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("agreed", torch.zeros(len(self.pairs), dtype=torch.long), "sum")
        # samples, then those to which each net gives the right class
        self.add_state("counts", torch.zeros(1 + len(self.nets), num_bins, dtype=torch.long), "sum")

    def update(self, counts: Counts) -> None:
        """Adds a batch."""
        self.total += counts.total
        self.least = torch.minimum(self.least, counts.least)
        self.most = torch.maximum(self.most, counts.most)
        self.kept += counts.kept
        self.agreed += counts.agreed
        self.counts += counts.counts

    def compute(self) -> ConfidenceSummary:
        num_samples = self.counts[0].sum()
        mean = self.total / num_samples
        scalars = {"confidence/share_kept": self.kept / num_samples}
        for i, name in enumerate(("confidence", "weight")):
            scalars[f"{name}/mean"] = mean[i]
            scalars[f"{name}/min"] = self.least[i]
            scalars[f"{name}/max"] = self.most[i]
        for (a, b), agreed in zip(self.pairs, self.agreed, strict=True):
            scalars[f"agreement/{a}_{b}"] = agreed / num_samples
        return ConfidenceSummary(scalars, self._bins())

    def _bins(self) -> Bins:
        samples, *right = self.counts.tolist()
        bins = []
        for i, count in enumerate(samples):
            row = {"low": i / self.num_bins, "high": (i + 1) / self.num_bins}
            row["share"] = count / sum(samples)
            for net, of_net in zip(self.nets, right, strict=True):
                row[f"{net}_accuracy"] = of_net[i] / count if count else None
            bins.append(row)
        return bins
