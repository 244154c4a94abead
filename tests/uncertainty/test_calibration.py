import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from kd_lightning.uncertainty.calibration import (
    CalibrationError,
    adaptive_calibration_error,
    brier_score,
    confidence_gap,
    expected_calibration_error,
    negative_log_likelihood,
    overconfidence_error,
)

HALVES = [torch.bfloat16, torch.float16]
SCORES = [negative_log_likelihood, brier_score]
ERRORS = [expected_calibration_error, adaptive_calibration_error]


def normal(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_loop(logits, labels, num_bins):
    """The formula of the paper, bin by bin, in Python."""
    bins = [[] for _ in range(num_bins)]
    for row, label in zip(logits.double().softmax(1).tolist(), labels.tolist(), strict=True):
        top = max(row)
        bins[math.ceil(top * num_bins) - 1].append((top, row.index(top) == label))
    error = 0.0
    for members in bins:
        if members:
            confidence = sum(top for top, _ in members) / len(members)
            accuracy = sum(right for _, right in members) / len(members)
            error += len(members) / len(labels) * abs(accuracy - confidence)
    return error


def test_calibration_error_by_hand():
    # bins of 1/2: one correct sample at .4; .6 correct and .8 wrong, so .7 against .5
    logits = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2], [0.8, 0.1, 0.1]]).log()
    error = expected_calibration_error(logits, torch.tensor([0, 0, 1]), num_bins=2)
    assert error.item() == pytest.approx(1 / 3 * 0.6 + 2 / 3 * 0.2, abs=1e-6)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_calibration_error_agrees_with_a_loop_and_with_torchmetrics(num_classes, num_bins):
    logits, labels = normal(500, num_classes), torch.arange(500) % num_classes
    found = expected_calibration_error(logits, labels, num_bins)
    assert found.shape == ()
    assert found.item() == pytest.approx(by_loop(logits, labels, num_bins), abs=1e-6)
    theirs = multiclass_calibration_error(logits.softmax(1), labels, num_classes, num_bins)
    torch.testing.assert_close(found, theirs, atol=1e-6, rtol=0)


def test_calibration_error_is_zero_when_the_probability_is_the_accuracy():
    logits, labels = torch.tensor([[0.75, 0.25]] * 4).log(), torch.tensor([0, 1, 0, 0])
    assert expected_calibration_error(logits, labels).item() == pytest.approx(0, abs=1e-6)
    certain = 1e4 * torch.eye(4)
    assert expected_calibration_error(certain, torch.arange(4)) == 0
    assert expected_calibration_error(certain, torch.arange(4).flip(0)) == 1


def test_a_probability_of_one_is_in_the_last_bin():
    # 1 and wrong, .95 and correct: in one bin the two errors partly cancel
    logits = torch.tensor([[1e4, 0.0], [math.log(19), 0.0]])
    error = expected_calibration_error(logits, torch.tensor([1, 0]), num_bins=10)
    assert error.item() == pytest.approx(0.5 * (1 - 0.05), abs=1e-6)


def test_a_probability_on_an_edge_is_in_the_bin_below():
    # .5 and correct, .8 and wrong: in one bin their errors would partly cancel
    logits = torch.tensor([[0.0, 0.0], [math.log(4), 0.0]])
    error = expected_calibration_error(logits, torch.tensor([0, 1]), num_bins=2)
    assert error.item() == pytest.approx(0.5 * 0.5 + 0.5 * 0.8, abs=1e-6)


def test_small_logits_are_not_treated_as_probabilities():
    logits = torch.tensor([[0.9, 0.1]])
    expected = 1 - logits.softmax(1)[0, 0].item()
    found = expected_calibration_error(logits, torch.tensor([0]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_calibration_error_without_bins_raises_an_error():
    with pytest.raises(ValueError, match="num_bins must be >= 1, got 0"):
        expected_calibration_error(normal(4, 3), torch.arange(4) % 3, num_bins=0)


def test_every_argument_changes_the_calibration_error():
    logits = normal(500, 10)
    # half are correct at any confidence: errors of both signs, so the bins matter
    labels = torch.where(torch.arange(500) % 2 == 0, logits.argmax(1), logits.argmin(1))
    base = expected_calibration_error(logits, labels)
    for changed in (
        expected_calibration_error(normal(500, 10, seed=1), labels),
        expected_calibration_error(logits, logits.argmax(1)),
        expected_calibration_error(logits, labels, num_bins=3),
    ):
        assert abs(changed - base) > 1e-4


def test_adaptive_error_by_hand():
    # two bins of two: .5, .6, both correct, .55 against 1; .8, .9, one correct, .85 against .5
    probs = torch.tensor([0.8, 0.5, 0.9, 0.6])
    logits = torch.stack([probs, 1 - probs], dim=1).log()
    error = adaptive_calibration_error(logits, torch.tensor([1, 0, 0, 0]), num_bins=2)
    assert error.shape == ()
    assert error.item() == pytest.approx((0.45 + 0.35) / 2, abs=1e-6)


@pytest.mark.parametrize("num_samples", [9, 150, 500])
@pytest.mark.parametrize("num_bins", [1, 15])
def test_adaptive_error_agrees_with_a_loop_over_sorted_samples(num_samples, num_bins):
    logits, labels = normal(num_samples, 10), torch.arange(num_samples) % 10
    probs = logits.double().softmax(1)
    samples = sorted(zip(probs.amax(1).tolist(), (probs.argmax(1) == labels).tolist(), strict=True))
    error = 0.0
    for m in range(num_bins):  # sample i is in bin floor(i M / n)
        members = samples[-(-m * num_samples // num_bins) : -(-(m + 1) * num_samples // num_bins)]
        error += abs(sum(right - top for top, right in members)) / num_samples
    found = adaptive_calibration_error(logits, labels, num_bins)
    assert found.item() == pytest.approx(error, abs=1e-6)


def test_adaptive_error_of_one_bin_is_that_of_one_bin_of_equal_width():
    logits, labels = normal(200, 5), torch.arange(200) % 5
    torch.testing.assert_close(
        adaptive_calibration_error(logits, labels, 1), expected_calibration_error(logits, labels, 1)
    )


def test_adaptive_error_finds_errors_that_cancel_in_a_bin_of_equal_width():
    # all in the last of 15 bins: .94 always correct, .98 in 9 of 10, mean .96 against .95
    probs = torch.tensor([0.94] * 10 + [0.98] * 10)
    labels = torch.tensor([0] * 19 + [1])
    logits = torch.stack([probs, 1 - probs], dim=1).log()
    assert expected_calibration_error(logits, labels).item() == pytest.approx(0.01, abs=1e-6)
    adaptive = adaptive_calibration_error(logits, labels, num_bins=2).item()
    assert adaptive == pytest.approx((0.06 + 0.08) / 2, abs=1e-6)


def test_adaptive_error_is_zero_when_the_probability_is_the_accuracy():
    logits, labels = torch.tensor([[0.75, 0.25]] * 4).log(), torch.tensor([0, 1, 0, 0])
    # four bins of one sample; samples of equal confidence share their accuracy
    assert adaptive_calibration_error(logits, labels, 4).item() == pytest.approx(0, abs=1e-6)


def test_adaptive_error_changes_with_every_argument():
    logits = normal(500, 10)
    labels = logits.argmax(1) + torch.arange(500) % 2  # half are correct, at any confidence
    labels = labels.clamp_max(9)
    base = adaptive_calibration_error(logits, labels)
    for changed in (
        adaptive_calibration_error(normal(500, 10, seed=1), labels),
        adaptive_calibration_error(logits, logits.argmax(1)),
        adaptive_calibration_error(logits, labels, num_bins=3),
        expected_calibration_error(logits, labels),
    ):
        assert abs(changed - base) > 1e-4


def test_scores_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.2]] * 2).log()
    labels = torch.tensor([0, 2])
    nll = torch.tensor([-math.log(0.5), -math.log(0.2)])
    brier = torch.tensor([0.25 + 0.09 + 0.04, 0.25 + 0.09 + 0.64])
    torch.testing.assert_close(negative_log_likelihood(logits, labels), nll)
    torch.testing.assert_close(brier_score(logits, labels), brier)


def test_scores_at_their_limits():
    certain, labels = 1e4 * torch.eye(4), torch.arange(4)
    uniform = torch.zeros(4, 4)
    for score, at_uniform in ((negative_log_likelihood, math.log(4)), (brier_score, 1 - 1 / 4)):
        assert torch.equal(score(certain, labels), torch.zeros(4))
        torch.testing.assert_close(score(uniform, labels), torch.full((4,), at_uniform))
    assert torch.equal(brier_score(certain, labels.flip(0)), torch.full((4,), 2.0))


@pytest.mark.parametrize("score", SCORES)
def test_scores_change_with_every_argument_and_have_a_gradient(score):
    logits, labels = normal(8, 10).requires_grad_(), torch.arange(8)
    base = score(logits, labels)
    assert not torch.allclose(base, score(normal(8, 10, seed=1), labels))
    assert not torch.allclose(base, score(logits, labels + 1))
    (gradient,) = torch.autograd.grad(base.sum(), logits)
    assert (gradient.abs().sum(1) > 0).all()


def test_scores_are_least_in_the_mean_at_the_true_probabilities():
    # both are proper scores: for labels drawn from p, the best prediction is p
    true = torch.tensor([[0.6, 0.3, 0.1]])
    labels = torch.arange(3)
    for score in SCORES:
        best = (true * score(true.log().expand(3, -1), labels)).sum()
        for other in normal(20, 3):
            assert (true * score(other.expand(3, -1), labels)).sum() > best


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("measure", [*ERRORS, *SCORES])
def test_finite_at_extreme_logits_in_float32(measure, dtype):
    logits, labels = (1e4 * normal(64, 10).sign()).to(dtype), torch.arange(64) % 10
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        found = measure(logits, labels)
    assert found.shape == (() if measure in ERRORS else (64,))
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert torch.equal(found, measure(logits.float(), labels))


def test_metric_over_batches_is_the_error_of_all_samples() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(100, 5), torch.randint(5, (100,))
    metric = CalibrationError()
    for part in (slice(0, 7), slice(7, 60), slice(60, 100)):
        metric.update(logits[part], labels[part])
    torch.testing.assert_close(metric.compute(), expected_calibration_error(logits, labels))


def test_overconfidence_by_hand():
    # bins of 1/2: .4 and right is underconfident; .6 right and .8 wrong are .7 against .5
    logits = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2], [0.8, 0.1, 0.1]]).log()
    labels = torch.tensor([0, 0, 1])
    assert overconfidence_error(logits, labels, num_bins=2).item() == pytest.approx(
        2 / 3 * 0.7 * 0.2, abs=1e-6
    )
    gaps = confidence_gap(logits, labels)
    torch.testing.assert_close(gaps, torch.tensor([0.4 - 1, 0.6 - 1, 0.8]))


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_neither_overconfidence_nor_the_gap_is_more_than_the_calibration_error(num_bins):
    for scale in (0.1, 1.0, 10.0):
        logits, labels = scale * normal(500, 10), torch.arange(500) % 10
        ece = expected_calibration_error(logits, labels, num_bins)
        assert 0 <= overconfidence_error(logits, labels, num_bins) <= ece + 1e-6
        assert confidence_gap(logits, labels).mean().abs() <= ece + 1e-6


def test_an_underconfident_net_has_no_overconfidence_and_a_negative_gap():
    logits, labels = torch.tensor([[0.6, 0.4]] * 5).log(), torch.zeros(5, dtype=torch.long)
    assert overconfidence_error(logits, labels) == 0
    assert confidence_gap(logits, labels).mean().item() == pytest.approx(-0.4)


def test_wrong_and_certain_is_the_largest_overconfidence():
    certain, wrong = 1e4 * torch.eye(4), torch.tensor([1, 2, 3, 0])
    assert overconfidence_error(certain, wrong) == 1
    assert (confidence_gap(certain, wrong) == 1).all()
    assert overconfidence_error(certain, torch.arange(4)) == 0


@pytest.mark.parametrize("dtype", HALVES)
def test_overconfidence_is_computed_in_float32_without_a_gradient(dtype):
    logits, labels = normal(300, 10).to(dtype).requires_grad_(), torch.arange(300) % 10
    for function in (overconfidence_error, confidence_gap):
        value = function(logits, labels)
        assert value.dtype == torch.float32
        assert not value.requires_grad
        torch.testing.assert_close(value, function(logits.float(), labels))
