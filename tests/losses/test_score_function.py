import itertools

import pytest
import torch

from kd_lightning.losses.score_function import score_function_mean


@pytest.mark.parametrize("num", [1, 2, 3])
def test_the_mean_of_the_estimate_over_all_draws_is_the_exact_gradient(num: int) -> None:
    """Two policies; each sample has a loss of its own under each, which has a parameter too."""
    logits = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    of_policy = torch.tensor([[1.0, 4.0], [2.5, -1.0], [0.3, 0.2]], dtype=torch.float64)[:num]
    chances = logits.softmax(0)
    exact = torch.autograd.grad(
        (scale * of_policy * chances).sum(1).mean(), (logits, scale), retain_graph=True
    )
    estimates = []
    for drawn in itertools.product(range(2), repeat=num):
        drawn = torch.tensor(drawn)
        losses = scale * of_policy[torch.arange(num), drawn]
        log_probs = logits.log_softmax(0)[drawn]
        loss = score_function_mean(losses, log_probs)
        torch.testing.assert_close(loss, losses.mean())
        gradients = torch.autograd.grad(loss, (logits, scale))
        estimates.append([log_probs.sum().exp().detach() * g for g in gradients])
    means = [torch.stack(parts).sum(0) for parts in zip(*estimates, strict=True)]
    torch.testing.assert_close(means, list(exact))


def test_equal_losses_push_no_choice() -> None:
    log_probs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    score_function_mean(torch.full((3,), 5.0), log_probs).backward()
    assert torch.equal(log_probs.grad, torch.zeros(3))


def test_of_no_samples_it_is_zero() -> None:
    log_probs = torch.zeros(0, requires_grad=True)
    loss = score_function_mean(torch.zeros(0), log_probs)
    loss.backward()
    assert loss == 0
