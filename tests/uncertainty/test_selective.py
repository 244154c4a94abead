import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_curve

from kd_lightning.uncertainty.selective import area_under_risk_coverage, log_odds, risk_coverage


def normal(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_definition(wrong, order):
    """Geifman et al.: the error of the n most confident samples, averaged over n."""
    return np.mean([np.mean([wrong[i] for i in order[:n]]) for n in range(1, len(order) + 1)])


LOGITS = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]).log()
LABELS = torch.tensor([1, 0, 1, 0])  # wrong, correct, correct, wrong


def test_curve_and_area_by_hand():
    # most confident first: .9 correct, .8 wrong, .7 correct, .6 wrong
    coverage, risk = risk_coverage(LOGITS, LABELS)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    torch.testing.assert_close(risk, torch.tensor([0, 1 / 2, 1 / 3, 1 / 2]))
    area = area_under_risk_coverage(LOGITS, LABELS)
    assert area.shape == ()
    assert area.item() == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_the_area_is_the_mean_of_its_definition():
    logits, labels = normal(60, 5), torch.arange(60) % 5
    probs = logits.double().softmax(dim=1)
    order = probs.amax(dim=1).argsort(descending=True).tolist()
    wrong = (probs.argmax(dim=1) != labels).tolist()
    found = area_under_risk_coverage(logits, labels).item()
    assert found == pytest.approx(by_definition(wrong, order), abs=1e-6)


@pytest.mark.parametrize("copies", [1, 4])
def test_the_risk_at_every_threshold_is_one_minus_the_precision_of_sklearn(copies):
    # "positive": accepted by the threshold; "true": correct
    logits, labels = normal(50, 4).repeat(copies, 1), torch.arange(50 * copies) % 3
    confidence = logits.double().softmax(dim=1).amax(dim=1)
    precision, _, thresholds = precision_recall_curve(logits.argmax(1) == labels, confidence)
    accepted = [(confidence >= t).sum().item() for t in thresholds]
    _, risk = risk_coverage(logits, labels)
    np.testing.assert_allclose(risk[np.array(accepted) - 1], 1 - precision[:-1], atol=1e-6)


def test_for_equal_confidences_it_is_the_mean_over_all_orders():
    logits = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.7, 0.3], [0.7, 0.3], [0.6, 0.4]]).log()
    labels = torch.tensor([0, 1, 0, 0, 1])
    wrong = (logits.argmax(dim=1) != labels).tolist()
    areas = [by_definition(wrong, [0, *o, 4]) for o in itertools.permutations([1, 2, 3])]
    assert len(set(areas)) > 1
    assert area_under_risk_coverage(logits, labels).item() == pytest.approx(np.mean(areas))


def test_the_order_of_samples_does_not_change_a_bit():
    logits, labels = normal(7, 3).repeat(20, 1), torch.arange(140) % 3
    expected = risk_coverage(logits, labels).risk
    for seed in range(5):
        order = torch.randperm(140, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(risk_coverage(logits[order], labels[order]).risk, expected)


def test_the_limits():
    logits = normal(40, 5)
    predicted = logits.argmax(dim=1)
    assert area_under_risk_coverage(logits, predicted) == 0
    assert area_under_risk_coverage(logits, predicted + 1) == 1
    # equal confidences: the error, at every coverage
    labels = torch.tensor([0, 0, 0, 1])
    torch.testing.assert_close(
        risk_coverage(torch.tensor([[1.0, 0.0]] * 4), labels).risk, torch.full((4,), 0.25)
    )


def test_errors_of_lower_confidence_cost_less():
    logits = torch.arange(10.0, 0, -1).unsqueeze(1) * torch.tensor([1.0, 0.0])
    areas = []
    for wrong in range(10):
        labels = torch.zeros(10, dtype=torch.long)
        labels[wrong] = 1
        areas.append(area_under_risk_coverage(logits, labels).item())
    assert areas == sorted(areas, reverse=True)
    assert len(set(areas)) == 10


def test_the_last_risk_is_the_error():
    logits, labels = normal(200, 5), torch.arange(200) % 5
    coverage, risk = risk_coverage(logits, labels)
    assert coverage[-1] == 1
    torch.testing.assert_close(risk[-1], (logits.argmax(dim=1) != labels).float().mean())


def test_log_odds_are_those_of_the_predicted_class():
    logits = normal(50, 6)
    p = logits.double().softmax(dim=1).amax(dim=1)
    torch.testing.assert_close(log_odds(logits), (p / (1 - p)).log().float(), atol=1e-6, rtol=1e-5)


def test_samples_with_a_probability_of_one_in_float32_are_still_ordered():
    logits = torch.tensor([[30.0, 0.0], [50.0, 0.0], [40.0, 0.0]])
    assert (logits.softmax(dim=1)[:, 0] == 1).all()
    right_where_most_confident = torch.tensor([1, 0, 0])
    torch.testing.assert_close(
        risk_coverage(logits, right_where_most_confident).risk, torch.tensor([0, 0, 1 / 3])
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_extreme_logits_in_float32(dtype):
    logits, labels = (1e4 * normal(64, 10).sign()).to(dtype), torch.arange(64) % 10
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        area = area_under_risk_coverage(logits, labels)
    assert area.dtype == torch.float32
    assert area.isfinite()
    assert torch.equal(area, area_under_risk_coverage(logits.float(), labels))
