import math

import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.score_function import score_function_mean
from kd_lightning.models.feature_policy import Draw, FeaturePolicy, LearnedPolicy
from kd_lightning.models.map_operations import apply_operations, operations_of

NAMES = ["translate_x", "cutout", "channel_drop"]  # pairs: (0, 1), (0, 2), (1, 2)


def draw_of(policy: FeaturePolicy, num: int, seed: int = 0) -> Draw:
    torch.manual_seed(seed)
    return policy.draw(num)


def test_there_are_all_pairs_of_operations() -> None:
    assert len(FeaturePolicy(operations_of(2)).pairs) == math.comb(9, 2)
    assert len(FeaturePolicy(operations_of(1)).pairs) == math.comb(5, 2)


def test_strengths_are_magnitudes_in_the_range_of_their_operation() -> None:
    pair, active = torch.tensor([0, 2]), torch.tensor([[True, False], [True, True]])
    magnitudes = torch.tensor([[1.0, 0.5], [0.5, 0.25]])
    strengths = FeaturePolicy(NAMES).strengths(Draw(pair, active, magnitudes, torch.zeros(2)))
    torch.testing.assert_close(strengths["translate_x"], torch.tensor([0.45, 0.0]))
    torch.testing.assert_close(strengths["cutout"], torch.tensor([0.0, 0.1]))
    torch.testing.assert_close(strengths["channel_drop"], torch.tensor([0.0, 0.125]))


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (6, 5, 8)])
def test_magnitudes_get_a_straight_through_gradient_and_change_no_value(shape: tuple) -> None:
    policy, x = LearnedPolicy(operations_of(len(shape) - 2)), torch.randn(shape)
    draw = draw_of(policy, 6)
    magnitudes = draw.magnitudes.detach().requires_grad_()
    draw = draw._replace(magnitudes=magnitudes)
    torch.manual_seed(1)
    augmented = policy(x, draw)
    torch.manual_seed(1)
    assert torch.equal(augmented, apply_operations(x, policy.strengths(draw)))
    (gradient,) = torch.autograd.grad(augmented.sum(), magnitudes)
    elements = x[0].numel()
    torch.testing.assert_close(gradient, elements * draw.active.float())
    assert set(draw.active.sum(1).tolist()) == {0, 1, 2}


def test_no_gradient_goes_to_the_map() -> None:
    policy, x = LearnedPolicy(NAMES), torch.randn(4, 3, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(policy(x, draw_of(policy, 4)).sum(), x, allow_unused=True)
    assert gradient is None


def test_draws_follow_the_probabilities_and_tell_them() -> None:
    policy = LearnedPolicy(NAMES)
    with torch.no_grad():
        policy.pair_logits.copy_(torch.tensor([0.2, 0.5, 0.3]).log())
        policy.chance_logits.copy_(torch.tensor([[0.1, 0.5], [0.8, 0.6], [0.5, 0.9]]).logit())
        policy.magnitude_logits.copy_(torch.rand(3, 2).logit())
    draw = draw_of(policy, 20_000)
    shares = draw.pair.bincount() / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.5, 0.3]), atol=0.015, rtol=0)
    for pair in range(3):
        chosen, chances = draw.pair == pair, policy.chance_logits[pair].sigmoid()
        active = draw.active[chosen].float()
        torch.testing.assert_close(active.mean(0), chances, atol=0.03, rtol=0)
        of_active = torch.where(draw.active[chosen], chances, 1 - chances).prod(1)
        expected = (policy.pair_logits[pair].exp() * of_active).log()
        torch.testing.assert_close(draw.log_probs[chosen], expected)
        magnitudes = policy.magnitude_logits[pair].sigmoid().expand_as(active)
        torch.testing.assert_close(draw.magnitudes[chosen], magnitudes)


def test_a_random_policy_is_uniform_and_learns_nothing() -> None:
    policy = FeaturePolicy(NAMES)
    draw = draw_of(policy, 20_000)
    torch.testing.assert_close(
        draw.pair.bincount() / 20_000, torch.full((3,), 1 / 3), atol=0.015, rtol=0
    )
    assert draw.active.float().mean() == pytest.approx(0.5, abs=0.01)
    assert draw.magnitudes.histc(4, 0, 1).min() / 10_000 == pytest.approx(1, abs=0.05)
    assert not list(policy.parameters())
    assert not policy.state_dict()


def test_entropy_and_activity_of_a_policy() -> None:
    policy = LearnedPolicy(NAMES)
    values = {name: value.item() for name, value in policy.statistics().items()}
    assert values == pytest.approx({"entropy": 1.0, "activity": 0.5})
    with torch.no_grad():
        policy.pair_logits[1] = 100.0
        policy.chance_logits[1] = torch.tensor([0.2, 0.6]).logit()
    values = {name: value.item() for name, value in policy.statistics().items()}
    assert values == pytest.approx({"entropy": 0.0, "activity": 0.4}, abs=1e-6)


def test_a_policy_finds_the_operations_that_cost_least() -> None:
    policy, x = LearnedPolicy(NAMES), 1 + torch.rand(16, 4, 8)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    torch.manual_seed(0)
    for _ in range(150):
        draw = policy.draw(16)
        losses = F.mse_loss(policy(x, draw), x, reduction="none").mean((1, 2))
        optimizer.zero_grad()
        score_function_mean(losses, draw.log_probs).backward()
        optimizer.step()
    assert policy.statistics()["entropy"] < 0.9
    assert policy.statistics()["activity"] < 0.2  # nothing is nearer to a map than itself
