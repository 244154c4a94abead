import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from kd_lightning.uncertainty import temperature
from kd_lightning.uncertainty.calibration import negative_log_likelihood
from kd_lightning.uncertainty.temperature import BOUNDS, fit_temperature


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(num_samples=400, num_classes=6, seed=0):
    """Logits, and labels drawn from their probabilities."""
    logits = 2 * normal(num_samples, num_classes, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    return logits, logits.softmax(dim=1).multinomial(1, generator=draw).squeeze(1)


@pytest.mark.parametrize("factor", [0.1, 1.0, 7.0])
def test_it_agrees_with_scipy_and_the_loss_of_sklearn(factor):
    logits, labels = drawn()

    def loss(log_t):
        probs = (factor * logits.double() / math.exp(log_t)).softmax(dim=1)
        return log_loss(labels, probs.numpy(), labels=range(6))

    theirs = math.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x)
    assert fit_temperature(factor * logits, labels) == pytest.approx(theirs, rel=1e-3)


def test_it_agrees_with_torchs_lbfgs():
    logits, labels = drawn()
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        scaled = 4 * logits.double() / log_t.exp()
        loss = torch.nn.functional.cross_entropy(scaled, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(4 * logits, labels) == pytest.approx(log_t.exp().item(), rel=1e-4)


def test_by_hand():
    # three of four labels agree, so p should be .75; for logits of log 9 this needs T = 2
    logits = torch.tensor([[math.log(9), 0.0]] * 4)
    assert fit_temperature(logits, torch.tensor([0, 0, 1, 0])) == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_it_follows_the_scale_of_the_logits_and_not_their_offset(factor):
    logits, labels = drawn()
    base = fit_temperature(logits, labels)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * base, rel=1e-5)
    assert fit_temperature(logits + normal(400, 1), labels) == pytest.approx(base, rel=1e-5)


def test_no_other_temperature_has_a_lower_nll():
    logits, labels = 5 * drawn()[0], drawn()[1]
    best = fit_temperature(logits, labels)

    def nll(t):
        return negative_log_likelihood(logits / t, labels).mean().item()

    assert all(nll(best) <= nll(t) for t in (0.5, 1, 0.98 * best, 1.02 * best, 10))
    assert nll(best) < nll(1) - 0.1


def test_no_samples_are_lost_between_chunks(monkeypatch):
    logits, labels = drawn()
    whole = fit_temperature(logits, labels)
    monkeypatch.setattr(temperature, "CHUNK", 7)
    assert fit_temperature(logits, labels) == pytest.approx(whole, rel=1e-9)


def test_the_lower_bound_if_all_predictions_are_correct():
    logits = normal(50, 4)
    assert fit_temperature(logits, logits.argmax(dim=1)) == BOUNDS[0]
    assert fit_temperature(1e4 * logits, logits.argmax(dim=1)) == BOUNDS[0]


def test_the_upper_bound_if_the_predictions_are_worse_than_uniform():
    logits = normal(50, 4)
    assert fit_temperature(logits, logits.argmin(dim=1)) == BOUNDS[1]


@pytest.mark.parametrize("value", [0.0, 0.1, 2.5, -1e4])
def test_one_if_the_temperature_has_no_effect(value):
    assert fit_temperature(torch.full((5, 7), value), torch.tensor([0, 1, 2, 6, 1])) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_extreme_logits(dtype):
    logits, labels = (1e4 * normal(60, 5).sign()).to(dtype), torch.arange(60) % 5
    assert BOUNDS[0] <= fit_temperature(logits, labels) <= BOUNDS[1]
