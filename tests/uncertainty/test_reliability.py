import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from kd_lightning.uncertainty.calibration import expected_calibration_error
from kd_lightning.uncertainty.reliability import (
    equal_mass,
    equal_width,
    reliability_curve,
    top_prediction,
)

BINNINGS = {"uniform": equal_width, "quantile": equal_mass}  # sklearn's names


def normal(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_bins_of_equal_width_by_hand():
    values = torch.tensor([0.0, 0.1, 0.25, 0.250001, 0.5, 0.75, 1.0])
    assert equal_width(values, 4).tolist() == [0, 0, 0, 1, 1, 2, 3]


def test_bins_of_equal_width_are_those_of_bucketize():
    edges = torch.linspace(0, 1, 16)
    values = torch.cat([torch.rand(1000), edges, edges.nextafter(torch.tensor(2.0)),
                        torch.tensor([torch.nan])])  # fmt: skip
    assert torch.equal(equal_width(values, 15), torch.bucketize(values, edges[1:-1]))


def test_bins_of_equal_mass_by_hand():
    values = torch.tensor([0.9, 0.1, 0.8, 0.2, 0.7, 0.3])
    assert equal_mass(values, 3).tolist() == [2, 0, 2, 0, 1, 1]
    assert equal_mass(values, 1).tolist() == [0] * 6
    assert equal_mass(torch.tensor([0.4, 0.2]), 15).unique().tolist() == [0, 7]  # fewer than bins


@pytest.mark.parametrize("num_samples", [1, 14, 15, 16, 100])
def test_bins_of_equal_mass_differ_by_at_most_one_sample_and_are_in_order(num_samples):
    values = normal(num_samples).sigmoid()
    in_bin = equal_mass(values, 15)
    count = in_bin.bincount(minlength=15)
    assert count.max() - count.min() <= 1
    assert (in_bin[values.argsort()].diff() >= 0).all()


@pytest.mark.parametrize("binning", BINNINGS.values())
def test_zero_bins_raise_an_error(binning):
    with pytest.raises(ValueError, match="num_bins must be >= 1, got 0"):
        reliability_curve(normal(4, 3), torch.arange(4) % 3, 0, binning)


def test_curve_by_hand():
    # bins of 1/2: one correct sample at .4; .6 correct and .8 wrong
    logits = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2], [0.8, 0.1, 0.1]]).log()
    curve = reliability_curve(logits, torch.tensor([0, 0, 1]), num_bins=2)
    assert curve.count.tolist() == [1, 2]
    torch.testing.assert_close(curve.confidence, torch.tensor([0.4, 0.7]))
    torch.testing.assert_close(curve.accuracy, torch.tensor([1.0, 0.5]))


@pytest.mark.parametrize("num_bins", [1, 10, 15])
@pytest.mark.parametrize("strategy", BINNINGS)
def test_curve_agrees_with_sklearn(strategy, num_bins):
    logits, labels = normal(600, 5), torch.arange(600) % 5
    confidence, correct = top_prediction(logits, labels)
    accuracies, confidences = calibration_curve(
        correct.numpy(), confidence.numpy(), n_bins=num_bins, strategy=strategy
    )
    found = reliability_curve(logits, labels, num_bins, BINNINGS[strategy])
    filled = found.count > 0  # sklearn omits empty bins
    np.testing.assert_allclose(found.accuracy[filled], accuracies, atol=1e-6)
    np.testing.assert_allclose(found.confidence[filled], confidences, atol=1e-6)
    assert found.count.sum() == 600


def test_empty_bins_are_nan():
    curve = reliability_curve(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([0]), 5)
    assert curve.count.tolist() == [0, 0, 0, 0, 1]
    assert curve.confidence[:4].isnan().all()
    assert curve.accuracy[:4].isnan().all()


def test_the_calibration_error_is_the_curves_distance_from_the_diagonal():
    logits, labels = normal(500, 10), torch.arange(500) % 10
    count, confidence, accuracy = reliability_curve(logits, labels)
    distance = (count * (accuracy - confidence).abs()).nansum() / 500
    torch.testing.assert_close(distance, expected_calibration_error(logits, labels))


@pytest.mark.parametrize("binning", BINNINGS.values())
def test_the_order_of_samples_does_not_matter_even_where_they_tie(binning):
    logits = normal(8, 3).repeat(10, 1)  # each confidence ten times; edges of bins divide them
    labels = torch.arange(80) % 3
    for seed in range(5):
        order = torch.randperm(80, generator=torch.Generator().manual_seed(seed))
        for now, then in zip(
            reliability_curve(logits[order], labels[order], 7, binning),
            reliability_curve(logits, labels, 7, binning),
            strict=True,
        ):
            torch.testing.assert_close(now, then, equal_nan=True)


def test_the_predicted_class_comes_from_the_logits_where_probabilities_are_equal():
    # two logits whose probabilities are equal in float32
    logits = torch.tensor([[0.0, 1e-8]])
    confidence, correct = top_prediction(logits, torch.tensor([1]))
    assert logits.softmax(dim=1).unique().numel() == 1
    assert (confidence.item(), correct.item()) == (0.5, 1.0)


@pytest.mark.parametrize("binning", BINNINGS.values())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_extreme_logits_in_float32(binning, dtype):
    logits, labels = (1e4 * normal(60, 10).sign()).to(dtype), torch.arange(60) % 10
    count, confidence, accuracy = reliability_curve(logits, labels, 4, binning)
    for values in (confidence, accuracy):
        assert values.dtype == torch.float32
        assert values[count > 0].isfinite().all()
