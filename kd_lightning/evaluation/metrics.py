"""Metrics of nets on a part of the data: one pass for all nets, then pure functions of logits.

Dimensions: N samples, B batch, C classes.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kd_lightning.base.confusion import confusion_matrix
from kd_lightning.evaluation.per_class import balanced_accuracy, macro_f1
from kd_lightning.uncertainty.calibration import (
    adaptive_calibration_error,
    brier_score,
    confidence_gap,
    expected_calibration_error,
    negative_log_likelihood,
    overconfidence_error,
)
from kd_lightning.uncertainty.confidence import predictive_entropy
from kd_lightning.uncertainty.selective import area_under_risk_coverage

Logits = Float[Tensor, "N C"]

# How long a throughput or a latency is measured
MEASURED_SECONDS = 0.2


@torch.no_grad()
def predict(
    nets: Mapping[str, nn.Module],
    loader: DataLoader,
    *,
    device: torch.device | str = "cpu",
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[dict[str, Logits], Int[Tensor, " N"]]:
    """Logits of every net, in float32, and the labels, on the CPU. Puts the nets into eval mode.

    Args:
        precision: returns the context that the nets run in, such as autocast.
    """
    logits: dict[str, list[Tensor]] = {name: [] for name in nets}
    labels = []
    for net in nets.values():
        net.to(device).eval()
    for x, y in loader:
        x = x.to(device)
        for name, net in nets.items():
            with precision():
                logits[name].append(net(x).logits.float().cpu())
        labels.append(y.cpu())
    return {name: torch.cat(rows) for name, rows in logits.items()}, torch.cat(labels)


def classification_metrics(logits: Logits, labels: Int[Tensor, " N"]) -> dict[str, float]:
    """The metrics of one net's predictions, in the order of ``metrics.json``.

    accuracy; balanced_accuracy, the mean recall of the classes; macro_f1; nll (nats); ece (15 bins
    of equal width); adaptive_ece (15 bins of equal mass); overconfidence_error (the bins of ece);
    confidence_gap, mean confidence minus accuracy; brier; aurc, the mean error over all coverages;
    entropy, the mean entropy of the predictions (nats).
    """
    predicted = logits.argmax(-1)
    matrix = torch.from_numpy(confusion_matrix(predicted, labels, logits.shape[-1]))
    return {
        "accuracy": (predicted == labels).float().mean().item(),
        "balanced_accuracy": balanced_accuracy(matrix),
        "macro_f1": macro_f1(matrix),
        "nll": negative_log_likelihood(logits, labels).mean().item(),
        "ece": expected_calibration_error(logits, labels).item(),
        "adaptive_ece": adaptive_calibration_error(logits, labels).item(),
        "overconfidence_error": overconfidence_error(logits, labels).item(),
        "confidence_gap": confidence_gap(logits, labels).mean().item(),
        "brier": brier_score(logits, labels).mean().item(),
        "aurc": area_under_risk_coverage(logits, labels).item(),
        "entropy": predictive_entropy(logits).mean().item(),
    }


def agreement(logits: Logits, others: Logits) -> float:
    """Share of samples for which two nets predict the same class."""
    return (logits.argmax(-1) == others.argmax(-1)).float().mean().item()


def count_parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def throughput(net: nn.Module, x: Tensor) -> float:
    """Samples per second of the forward pass: median over repeated passes of one batch."""
    return len(x) / median_seconds(net.eval(), x)


@torch.no_grad()
def median_seconds(run: Callable[[Tensor], Any], x: Tensor) -> float:
    """Median time of repeated calls with one batch, after a first call that is not counted: for
    ``MEASURED_SECONDS`` at least, and three calls or more.
    """
    times: list[float] = []
    run(x)
    while sum(times) < MEASURED_SECONDS or len(times) < 3:
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        start = time.perf_counter()
        run(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
