"""Relaxed choices: what they say, and that drawing anew keeps both the choice and the law of z."""

import pytest
import torch

from kd_lightning.losses.relax import (
    relax_gradient,
    relaxed_choice,
    relaxed_switch,
    resampled_choice,
    resampled_switch,
)

NUM = 20_000
LOG_PROBS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log().expand(NUM, -1)
LOGITS = torch.tensor([-1.2, 0.0, 0.7], dtype=torch.float64).expand(NUM, -1)


@pytest.fixture
def uniform() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, NUM, 3, generator=generator, dtype=torch.float64)


def test_a_choice_without_any_chance_has_a_finite_gradient() -> None:
    log_probs = torch.tensor([0.0, -120.0], requires_grad=True)
    z = resampled_choice(log_probs, torch.tensor(0), torch.tensor([0.3, 0.6]))
    z.sum().backward()
    assert z.isfinite().all()
    assert log_probs.grad.tolist() == pytest.approx([0, 1])


def assert_near(samples: torch.Tensor, expected: torch.Tensor) -> None:
    """The mean over the samples is what is expected, within four standard errors."""
    error = samples.std(0) / len(samples) ** 0.5
    assert ((samples.mean(0) - expected).abs() < 4 * error).all()


def test_a_relaxed_choice_follows_the_probabilities(uniform) -> None:
    choice = relaxed_choice(LOG_PROBS, uniform[0]).argmax(1)
    assert_near(torch.nn.functional.one_hot(choice).double(), LOG_PROBS[0].exp())
    assert_near((relaxed_switch(LOGITS, uniform[0]) > 0).double(), LOGITS[0].sigmoid())


def test_drawn_anew_it_is_the_same_choice_with_the_same_distribution(uniform) -> None:
    z, switches = relaxed_choice(LOG_PROBS, uniform[0]), relaxed_switch(LOGITS, uniform[0])
    other = resampled_choice(LOG_PROBS, z.argmax(1), uniform[1])
    others = resampled_switch(LOGITS, switches > 0, uniform[1])
    assert torch.equal(other.argmax(1), z.argmax(1))
    assert torch.equal(others > 0, switches > 0)
    for a, b in ((z, other), (switches, others)):
        assert not torch.isclose(a, b).any(1).all()
        for power in (1, 2):
            assert_near(a**power - b**power, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_uniform_numbers_at_their_ends_are_finite(edge: float) -> None:
    ends = torch.full((4, 3), edge)
    log_probs, logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(4, -1), torch.zeros(4, 3)
    assert relaxed_choice(log_probs, ends).isfinite().all()
    assert resampled_choice(log_probs, torch.tensor([0, 1, 2, 0]), ends).isfinite().all()
    assert relaxed_switch(logits, ends).isfinite().all()
    assert resampled_switch(logits, logits > 0, ends).isfinite().all()


def test_without_a_control_variate_it_is_the_score_function() -> None:
    logits = torch.tensor([0.3, -0.4, 1.0], requires_grad=True)
    losses, choice = torch.tensor([1.0, 3.0]), torch.tensor([2, 0])
    log_probs = logits.log_softmax(0)[choice]
    zero = 0 * logits.sum().expand(2)
    (gradient,) = relax_gradient(losses, (log_probs, log_probs), (zero, zero), [logits])
    (expected,) = torch.autograd.grad((losses * logits.log_softmax(0)[choice]).mean(), logits)
    torch.testing.assert_close(gradient.detach(), expected)


def test_of_no_samples_it_is_zero() -> None:
    logits = torch.zeros(3, requires_grad=True)
    none = logits.log_softmax(0)[:0]
    (gradient,) = relax_gradient(none.detach(), (none, none), (none, none), [logits])
    assert torch.equal(gradient, torch.zeros(3))
