"""Mixup in the order of uncertainty, against values worked out by hand."""

import math

import pytest
import torch

from kd_lightning.uncertainty.ordered_mixup import (
    entropy_score,
    margin_score,
    max_probability_score,
    mix_in_order,
    position_weights,
)

SCORES = (entropy_score, max_probability_score, margin_score)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_weights_of_the_released_settings() -> None:
    weights = position_weights(torch.arange(64.0), boundary=32 / 64, steepness=10.0)
    middle = (2 * 32 - 1) / (2 * 64)
    expected = [sigmoid(10 * (r / 64 - middle)) for r in range(64)]
    torch.testing.assert_close(weights, torch.tensor(expected))
    assert weights[0].item() == pytest.approx(0.007, abs=5e-4)
    assert weights[47].item() == pytest.approx(0.92, abs=5e-3)
    assert weights[31] < 0.5 < weights[32]


@pytest.mark.parametrize(("boundary", "steepness"), [(0.0, 1.0), (0.3, 1000.0), (1.0, 10.0)])
def test_weights_are_in_0_to_1_and_never_fall(boundary: float, steepness: float) -> None:
    weights = position_weights(torch.arange(50.0), boundary, steepness)
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert (weights.diff() >= 0).all()
    assert weights[-1] > weights[0]


def test_no_steepness_is_one_half_everywhere() -> None:
    assert (position_weights(torch.arange(7.0), 0.2, 0.0) == 0.5).all()


def test_every_score_in_numbers() -> None:
    logits = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.5, 0.0]]).log().clamp_min(-1e4)
    entropy = [-sum(p * math.log(p) for p in row) for row in ((0.6, 0.3, 0.1), (0.5, 0.5))]
    torch.testing.assert_close(entropy_score(logits), torch.tensor(entropy))
    torch.testing.assert_close(max_probability_score(logits), torch.tensor([0.4, 0.5]))
    torch.testing.assert_close(margin_score(logits), torch.tensor([-0.3, 0.0]))


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_finite_highest_for_uniform_and_without_gradient(score) -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [1e4, -1e4, 0.0], [1.0, 0.0, 0.0]], requires_grad=True)
    values = score(logits)
    assert values.isfinite().all()
    assert not values.requires_grad
    assert values.argsort(descending=True).tolist() == [0, 2, 1]


def mixed(x: torch.Tensor, score: torch.Tensor, strength: float = 0.5, kept: int = 3, **how):
    partners = torch.tensor([2, 0, 3, 1])
    settings = {"boundary": 0.5, "steepness": 10.0} | how
    return mix_in_order(x, score, partners, strength, num_kept=kept, **settings)


def test_the_most_uncertain_are_kept_and_mixed_the_surer_the_more() -> None:
    x, score = torch.tensor([[1.0], [10.0], [100.0], [1000.0]]), torch.tensor([0.1, 0.4, 0.2, 0.3])
    found = mixed(x, score)
    assert found.first.tolist() == [1, 3, 2]
    assert found.second.tolist() == [2, 0, 3]
    shares = [0.5 * sigmoid(10 * (r / 4 - 3 / 8)) for r in range(3)]
    torch.testing.assert_close(found.share, torch.tensor(shares))
    pairs = [(10, 100), (1000, 1), (100, 1000)]
    expected = [[(1 - s) * a + s * b] for s, (a, b) in zip(shares, pairs, strict=True)]
    torch.testing.assert_close(found.x, torch.tensor(expected))


def test_equal_scores_keep_the_order_of_the_batch() -> None:
    assert mixed(torch.rand(4, 2), torch.zeros(4), kept=4).first.tolist() == [0, 1, 2, 3]


def test_strength_0_gives_the_samples_themselves_and_uint8_the_unit_range() -> None:
    images = torch.tensor([0, 51, 102, 255], dtype=torch.uint8).view(4, 1, 1, 1)
    found = mixed(images, torch.arange(4.0), strength=0.0, kept=4)
    assert torch.equal(found.x, images.flip(0).float() / 255)
    assert mixed(images, torch.arange(4.0), strength=1.0, kept=4).x.max() <= 1
