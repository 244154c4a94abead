"""The hashing loss: its formula, what makes it small, and where its gradient goes."""

import math

import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.hashing import hashing_loss

PLANES = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


def features(seed: int = 1) -> torch.Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_its_formula() -> None:
    student, target = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 1.0]])
    planes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    softplus = [math.log1p(math.exp(z)) for z in (-1.0, 2.0, -1.0)]  # bits 1, 1, 0
    torch.testing.assert_close(
        hashing_loss(student, target, planes), torch.tensor([sum(softplus) / 3])
    )
    expected = sum(math.log1p(math.exp(z - 5)) for z in (1.0, -2.0, -1.0)) / 3  # all bits 0
    torch.testing.assert_close(
        hashing_loss(student, target, planes, -5.0), torch.tensor([expected])
    )


def test_equal_features_are_not_zero_and_a_long_multiple_of_the_target_is() -> None:
    target = features()
    losses = [hashing_loss(scale * target, target, PLANES).mean() for scale in (1, 10, 1e4)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[0] > 0.1
    assert losses[2] < 1e-2


def test_it_is_least_where_all_sides_agree() -> None:
    target = features()
    flipped = torch.cat([target[:, :3], -target[:, 3:]], dim=1)
    for worse in (-target, flipped):
        assert (hashing_loss(target, target, PLANES) < hashing_loss(worse, target, PLANES)).all()
    soft_bits = F.linear(target, PLANES)
    least = F.softplus(-soft_bits.abs()).mean(dim=1)
    torch.testing.assert_close(hashing_loss(target, target, PLANES), least)


def test_the_length_of_the_target_has_no_effect() -> None:
    student, target = features(), features(2)
    assert torch.equal(
        hashing_loss(student, target, PLANES), hashing_loss(student, 4 * target, PLANES)
    )


def test_the_gradient_goes_to_the_student_alone() -> None:
    student, target = features().requires_grad_(), features(2).requires_grad_()
    hashing_loss(student, target, PLANES).sum().backward()
    assert (student.grad != 0).all()
    assert target.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_it_is_finite_in_float32_for_large_features(dtype: torch.dtype) -> None:
    loss = hashing_loss(features().to(dtype) * 1e6, features(2).to(dtype), PLANES)
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()


def test_it_is_computed_in_float32_under_autocast() -> None:
    expected = hashing_loss(features(1), features(2), PLANES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hashing_loss(features(1), features(2), PLANES), expected)
