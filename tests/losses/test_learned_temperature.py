"""The laws of a temperature that learns against its student (CTKD, arXiv 2211.16231)."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.dist import dist_soft_loss
from kd_lightning.losses.dkd import dkd_soft_loss
from kd_lightning.losses.learned_temperature import LearnedTemperature, reversed_gradient
from kd_lightning.losses.mlkd import mlkd_soft_loss
from kd_lightning.losses.soft_targets import kl_soft_loss, reverse_kl_soft_loss

SOFT_LOSSES = {
    "kl": kl_soft_loss,
    "reverse_kl": reverse_kl_soft_loss,
    "dkd": partial(dkd_soft_loss, target_weight=1.0, nontarget_weight=8.0),
    "dist": partial(dist_soft_loss, inter_weight=2.0, intra_weight=1.0),
    "mlkd": partial(mlkd_soft_loss, factors=[0.5, 1.5], batch_weight=1.0, class_weight=1.0),
}


def logits(seed: int) -> Tensor:
    return 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))


def test_the_temperature_begins_as_released_and_stays_in_its_range() -> None:
    learned = LearnedTemperature(1.0, 20.0)
    assert learned(1.0).item() == pytest.approx(1 + 20 / (1 + math.exp(-1)))
    for tau, expected in ((-1e4, 1.0), (1e4, 21.0)):
        with torch.no_grad():
            learned.tau.fill_(tau)
        assert learned(1.0).item() == expected


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, torch.tensor(0.3)])
def test_the_gradient_is_reversed_by_the_strength_and_the_value_is_the_same(
    strength: float | Tensor,
) -> None:
    x = torch.tensor([0.1, -7.3], requires_grad=True)
    found = reversed_gradient(x, strength)
    assert torch.equal(found, x)
    (found * torch.tensor([2.0, 5.0])).sum().backward()
    torch.testing.assert_close(x.grad, -strength * torch.tensor([2.0, 5.0]))


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_the_temperature_climbs_the_slope_of_every_soft_loss(name: str) -> None:
    learned, loss, labels = LearnedTemperature(1.0, 2.0), SOFT_LOSSES[name], torch.arange(6) % 5
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    value = loss(student, teacher, labels, learned(0.5))
    value.mean().backward()
    assert value.shape == (6,)
    assert teacher.grad is None
    assert student.grad.abs().max() > 0
    around = [loss(student, teacher, labels, learned(1).item() + d).mean() for d in (-0.1, 0.1)]
    sigmoid = torch.tensor(1.0).sigmoid()
    slope = (around[1] - around[0]) / 0.2 * 2 * sigmoid * (1 - sigmoid)
    torch.testing.assert_close(learned.tau.grad, (-0.5 * slope).detach(), rtol=0.02, atol=1e-5)
    fixed = loss(student, teacher, labels, learned(1).item())
    torch.testing.assert_close(value, fixed)


def test_the_gradient_is_that_of_both_predictions() -> None:
    temperature = torch.tensor(3.0, requires_grad=True)
    student, teacher = logits(0), logits(1)
    kl_soft_loss(student, teacher, None, temperature).sum().backward()
    t = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    p, q = (student.double() / t).log_softmax(1), (teacher.double() / t).log_softmax(1)
    (t**2 * F.kl_div(p, q, log_target=True, reduction="sum")).backward()
    torch.testing.assert_close(temperature.grad.double(), t.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: LearnedTemperature(0.0, 1.0),
                                  lambda: LearnedTemperature(1.0, -1.0),
                                  lambda: LearnedTemperature(1.0, math.inf)])  # fmt: skip
def test_a_temperature_has_a_start_and_a_span_above_zero(make: Callable) -> None:
    with pytest.raises(ValueError, match="start and span must be > 0, got"):
        make()
