import pytest
import torch
from torch import Tensor, nn

from kd_lightning.losses.attacks import pgd

SETTINGS = {"epsilon": 0.1, "step_size": 0.03, "steps": 5}


def batch(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def linear(w: Tensor):
    return lambda x: (x * w).sum(1)


@pytest.mark.parametrize(
    ("steps", "moved"), [(0, 0.0), (1, 0.03), (2, 0.06), (3, 0.09), (4, 0.1), (9, 0.1)]
)
def test_each_step_goes_up_the_slope_and_none_leaves_the_ball(steps: int, moved: float) -> None:
    w = torch.tensor([2.0, -0.5, 0.0])
    x = torch.tensor([[0.4, 0.5, 0.6], [0.02, 0.03, 0.04]])
    attacked = pgd(linear(w), x, **SETTINGS | {"steps": steps}, bounds=(0, 1))
    expected = (x + moved * torch.tensor([1.0, -1.0, 0.0])).clamp(0, 1)
    torch.testing.assert_close(attacked, expected)


def test_a_sample_stays_in_the_ball_and_in_the_bounds_whatever_the_step() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1))
    x = batch(64, 12)
    noise = 2 * batch(64, 12, seed=1) - 1
    for step_size in (0.01, 0.07, 3.0):
        attacked = pgd(
            lambda u: net(u)[:, 0].square(), x, epsilon=0.1, step_size=step_size, steps=7,
            noise=noise, bounds=(0, 1),
        )  # fmt: skip
        assert (attacked - x).abs().max() <= 0.1 + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1
    free = pgd(lambda u: net(u)[:, 0].square(), x, **SETTINGS, noise=noise)
    assert free.min() < 0
    assert free.max() > 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_small_gradient_is_followed_in_half_precision(dtype: torch.dtype) -> None:
    """Fixed bug: in fp16 the gradient of a sample that the net is sure of was 0, so that the sample
    was not attacked and counted as robust.
    """
    net = nn.Linear(12, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.stack([torch.ones(12), -torch.ones(12)]))
    x, y = torch.full((4, 12), 0.8), torch.zeros(4, dtype=torch.long)  # p of the label: 1 - 5e-9
    with torch.autocast("cpu", dtype=dtype):
        attacked = pgd(lambda u: nn.functional.cross_entropy(net(u), y, reduction="none"), x,
                       **SETTINGS)  # fmt: skip
    torch.testing.assert_close(attacked, x - 0.1)


def test_it_starts_at_the_noise() -> None:
    x, noise = torch.full((1, 3), 0.5), torch.tensor([[1.0, -0.5, 0.0]])
    start = pgd(linear(torch.ones(3)), x, **SETTINGS | {"steps": 0}, noise=noise)
    torch.testing.assert_close(start, torch.tensor([[0.6, 0.45, 0.5]]))
    step = pgd(linear(torch.ones(3)), x, **SETTINGS | {"steps": 1}, noise=noise)
    torch.testing.assert_close(step, torch.tensor([[0.6, 0.48, 0.53]]))


def test_an_attack_of_size_zero_changes_no_bit() -> None:
    x = batch(4, 3)
    attacked = pgd(
        linear(torch.ones(3)), x, epsilon=0, step_size=0.1, steps=3, noise=torch.ones(4, 3)
    )
    assert torch.equal(attacked, x)


def test_weights_keep_the_gradient_that_they_had_and_the_result_has_none() -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(3, 1), batch(4, 3).requires_grad_()
    net.bias.grad = torch.tensor([7.0])
    with torch.no_grad():  # as in validation
        attacked = pgd(lambda u: net(u)[:, 0], x, **SETTINGS)
    assert net.weight.grad is None
    assert torch.equal(net.bias.grad, torch.tensor([7.0]))
    assert x.grad is None
    assert not attacked.requires_grad
    assert not torch.equal(attacked, x)
