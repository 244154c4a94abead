"""A policy that RELAX teaches: no bias, less variance, and who gets which gradient."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.models.relaxed_policy import RelaxedDraw, RelaxedPolicy

NAMES = ["translate_x", "cutout", "channel_drop"]  # pairs: (0, 1), (0, 2), (1, 2)
# The loss of each pair and state of its two operations.
LOSSES = 5 + torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def make() -> RelaxedPolicy:
    torch.manual_seed(0)
    policy = RelaxedPolicy(NAMES).double()
    with torch.no_grad():
        policy.pair_logits.copy_(torch.tensor([0.2, 0.5, 0.3]).log())
        policy.chance_logits.copy_(torch.tensor([[0.1, 0.5], [0.8, 0.6], [0.5, 0.9]]).logit())
    return policy


def losses_of(draw: RelaxedDraw) -> Tensor:
    first, second = draw.active.long().unbind(1)
    return LOSSES[draw.pair, first, second]


def exact_gradient(policy: RelaxedPolicy) -> Tensor:
    """Of the expected loss, by going through all that can be drawn."""
    chances = policy.chance_logits.sigmoid()
    expected = 0
    for pair, *states in itertools.product(range(3), (0, 1), (0, 1)):
        probability = policy.pair_logits.softmax(0)[pair]
        for chance, state in zip(chances[pair], states, strict=True):
            probability = probability * (chance if state else 1 - chance)
        expected = expected + probability * LOSSES[pair, states[0], states[1]]
    return flat(torch.autograd.grad(expected, policy.choices))


def flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([g.detach().flatten() for g in gradients])


def estimates(policy: RelaxedPolicy, repeats: int, size: int) -> Tensor:
    torch.manual_seed(1)
    draws = [policy.draw(size) for _ in range(repeats)]
    return torch.stack([flat(policy.estimate(losses_of(draw), draw)) for draw in draws])


def scores(policy: RelaxedPolicy, repeats: int, size: int) -> Tensor:
    """The score-function estimates of the same draws, without a baseline."""
    torch.manual_seed(1)
    found = []
    for _ in range(repeats):
        draw = policy.draw(size)
        loss = (losses_of(draw) * draw.log_probs).mean()
        found.append(flat(torch.autograd.grad(loss, policy.choices)))
    return torch.stack(found)


def assert_unbiased(policy: RelaxedPolicy) -> None:
    found = estimates(policy, 100, 400)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - exact_gradient(policy)).abs() < 4 * error).all()


@pytest.fixture(scope="module")
def trained() -> RelaxedPolicy:
    """A policy whose control variate has learned, and its choices have not."""
    policy = make()
    optimizer = torch.optim.Adam(policy.control.parameters(), lr=0.02)
    torch.manual_seed(3)
    for _ in range(150):
        draw = policy.draw(64)
        optimizer.zero_grad()
        policy.terms(losses_of(draw), draw)["control"].backward()
        optimizer.step()
    return policy


def test_the_mean_of_the_estimate_is_the_exact_gradient(trained: RelaxedPolicy) -> None:
    strong = make()
    with torch.no_grad():
        strong.control[2].weight.mul_(10)  # of no use as a control variate
    assert_unbiased(strong)
    assert_unbiased(trained)


def test_a_control_variate_that_has_learned_makes_the_variance_small(
    trained: RelaxedPolicy,
) -> None:
    variance = estimates(trained, 100, 16).var(0).sum()
    assert variance < 0.7 * scores(trained, 100, 16).var(0).sum()


def test_draws_follow_the_probabilities_and_tell_them() -> None:
    policy = make()
    torch.manual_seed(4)
    draw = policy.draw(20_000)
    shares = policy.pair_logits.softmax(0)
    counts = draw.pair.bincount(minlength=3) / 20_000
    torch.testing.assert_close(counts.double(), shares.detach(), atol=0.015, rtol=0)
    active = torch.stack([draw.active[draw.pair == n].double().mean(0) for n in range(3)])
    torch.testing.assert_close(active, policy.chance_logits.detach().sigmoid(), atol=0.03, rtol=0)
    chances = policy.chance_logits.sigmoid()[draw.pair]
    of_active = torch.where(draw.active, chances, 1 - chances).log().sum(1)
    torch.testing.assert_close(draw.log_probs, shares[draw.pair].log() + of_active)


def test_each_term_teaches_its_own_and_the_mean_loss_keeps_its_value_and_its_gradient() -> None:
    policy = make()
    draw = policy.draw(8)
    of_maps = F.softplus(policy.magnitude_logits[draw.pair]).sum(1)
    terms = policy.terms(of_maps, draw)
    torch.testing.assert_close(terms["policy"], of_maps.mean())
    estimate = policy.estimate(of_maps.detach(), draw)
    (plain,) = torch.autograd.grad(of_maps.mean(), policy.magnitude_logits, retain_graph=True)
    terms["policy"].backward(retain_graph=True)
    assert all(p.grad is None for p in policy.control.parameters())
    for parameter, gradient in zip(policy.choices, estimate, strict=True):
        torch.testing.assert_close(parameter.grad, gradient.detach())
        parameter.grad = None
    torch.testing.assert_close(policy.magnitude_logits.grad, plain)
    terms["control"].backward()
    assert all(p.grad is not None for p in policy.control.parameters())
    assert all(p.grad is None for p in policy.choices)
    torch.testing.assert_close(terms["control"], sum(g.square().sum() for g in estimate))


def test_of_no_losses_both_terms_are_zero() -> None:
    policy = make()
    draw = policy.draw(0)
    terms = policy.terms(torch.zeros(0, dtype=torch.float64), draw)
    assert [term.item() for term in terms.values()] == [0, 0]
