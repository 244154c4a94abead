import math
from contextlib import contextmanager

import pytest
import torch
from helpers import net
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning.evaluation import metrics as evaluation
from kd_lightning.models.outputs import ModelOutput


class Fixed(nn.Module):
    """Returns its input as logits, and records the mode of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, x: torch.Tensor) -> ModelOutput:
        self.modes.append(self.training)
        return ModelOutput(x, x)


LOGITS = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]).log()
LABELS = torch.tensor([0, 1, 1, 0])
SAMPLE_BY_SAMPLE = ("accuracy", "nll", "brier", "entropy", "confidence_gap")


def test_metrics_by_hand():
    metrics = evaluation.classification_metrics(LOGITS, LABELS)
    of_label = [0.9, 0.8, 0.4, 0.7]  # the probability of the label
    assert metrics["accuracy"] == 0.75
    # of class 0 both samples are found, of class 1 one; of three predictions of 0 two are right
    assert metrics["balanced_accuracy"] == 0.75
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert metrics["nll"] == pytest.approx(-sum(math.log(p) for p in of_label) / 4)
    assert metrics["brier"] == pytest.approx(sum(2 * (1 - p) ** 2 for p in of_label) / 4)
    # each sample is in its own bin: |confidence - correct|
    assert metrics["ece"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.3) / 4)
    assert metrics["adaptive_ece"] == pytest.approx(metrics["ece"])
    # of these one is wrong, with .6 instead of 0; the others are right, with less than 1
    assert metrics["overconfidence_error"] == pytest.approx(0.6 * 0.6 / 4)
    assert metrics["confidence_gap"] == pytest.approx((0.6 - 0.1 - 0.2 - 0.3) / 4, abs=1e-6)
    # only the least confident prediction is wrong
    assert metrics["aurc"] == pytest.approx((0 + 0 + 0 + 1 / 4) / 4)
    of_each = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.9, 0.8, 0.6, 0.7)]
    assert metrics["entropy"] == pytest.approx(sum(of_each) / 4)


def test_only_sample_wise_metrics_are_means_over_parts():
    numbers = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(400, 5, generator=numbers)
    labels = logits.softmax(dim=1).multinomial(1, generator=numbers).squeeze(1)
    whole = evaluation.classification_metrics(logits, labels)
    halves = [evaluation.classification_metrics(logits[i::2], labels[i::2]) for i in (0, 1)]
    for name, value in whole.items():
        mean = (halves[0][name] + halves[1][name]) / 2
        assert (value == pytest.approx(mean, abs=1e-6)) == (name in SAMPLE_BY_SAMPLE)


def test_predict_keeps_the_order_of_the_loader():
    x = torch.randn(10, 3)
    loader = DataLoader(TensorDataset(x, torch.arange(10)), batch_size=4)
    logits, labels = evaluation.predict({"one": Fixed(), "two": Fixed()}, loader)
    assert torch.equal(logits["one"], x)
    assert torch.equal(logits["two"], x)
    assert torch.equal(labels, torch.arange(10))


def test_predict_gives_logits_and_labels_on_the_cpu_whatever_the_device_of_the_batches():
    """Fixed bug: labels of batches that lie on a GPU stayed there, and the test of a run failed."""
    with FakeTensorMode():
        batches = [(torch.empty(4, 3, device="cuda"), torch.empty(4, device="cuda").long())] * 2
        logits, labels = evaluation.predict({"a": Fixed()}, batches, device="cuda")
        assert (logits["a"].device.type, labels.device.type) == ("cpu", "cpu")
        assert (logits["a"].shape, labels.shape) == ((8, 3), (8,))


def test_predict_uses_eval_mode_float32_and_no_graph():
    fixed = Fixed().train()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loader = DataLoader(TensorDataset(x.detach(), torch.arange(4)), batch_size=4)
    logits, _ = evaluation.predict({"net": fixed}, loader)
    assert fixed.modes == [False]
    assert logits["net"].dtype == torch.float32
    assert not logits["net"].requires_grad


def test_predict_runs_the_nets_in_the_given_precision():
    entered = []

    @contextmanager
    def precision():
        entered.append(True)
        yield

    loader = DataLoader(TensorDataset(torch.randn(8, 3), torch.arange(8)), batch_size=4)
    evaluation.predict({"a": Fixed(), "b": Fixed()}, loader, precision=precision)
    assert len(entered) == 4  # two nets, two batches


def test_agreement_is_the_share_of_equal_classes():
    assert evaluation.agreement(LOGITS, LOGITS) == 1
    assert evaluation.agreement(LOGITS, -LOGITS) == 0
    assert evaluation.agreement(LOGITS, LOGITS.flip(0)) == 0.5


def test_parameters_are_counted_and_buffers_are_not():
    assert evaluation.count_parameters(nn.BatchNorm1d(5)) == 10
    assert evaluation.count_parameters(net(12, 8, 3)) == 12 * 8 + 8 + 8 * 3 + 3


def test_throughput_counts_samples_and_not_batches(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(clock))
    fixed = Fixed().train()
    assert evaluation.throughput(fixed, torch.zeros(8, 3)) == 8  # one second for a batch of 8
    assert len(fixed.modes) == 1 + 3  # one warm-up pass, then at least three measured ones
    assert not any(fixed.modes)


@pytest.mark.parametrize(("least", "calls"), [(0.0, 3), (10.0, 10)])
def test_a_time_is_measured_for_as_long_as_is_asked_and_thrice_at_least(monkeypatch, least, calls):
    seconds, called = iter(range(1000)), []
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr(evaluation, "MEASURED_SECONDS", least)
    assert evaluation.median_seconds(called.append, torch.zeros(8, 3)) == 1
    assert len(called) == 1 + calls  # the first is not counted
