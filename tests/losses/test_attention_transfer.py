import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.attention_transfer import (
    attention_map,
    attention_transfer,
    pool_to_smaller,
)

HALVES = [torch.bfloat16, torch.float16]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_map_by_hand():
    maps = torch.tensor([[[[1.0, 0.0]], [[-1.0, 2.0]]]])  # sums of squares: 2 and 4
    expected = torch.tensor([[2.0, 4.0]]) / 20**0.5
    torch.testing.assert_close(attention_map(maps), expected)
    absolute = torch.tensor([[2.0, 2.0]]) / 8**0.5
    torch.testing.assert_close(attention_map(maps, power=1.0), absolute)


def test_attention_transfer_by_hand():
    student = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]])
    teacher = torch.tensor([[[[0.0, 3.0]]], [[[3.0**0.5, 2.0]]]])  # maps (0, 1) and (.6, .8)
    expected = torch.tensor([(1 + 1) / 2, (0.4**2 + 0.8**2) / 2])
    torch.testing.assert_close(attention_transfer(student, teacher), expected)


def test_attention_transfer_agrees_with_the_formula_in_torch():
    student, teacher = normal(5, 7, 4, 4), normal(5, 3, 4, 4, seed=1)
    maps = [F.normalize(x.square().mean(1).flatten(1)) for x in (student, teacher)]
    loss = attention_transfer(student, teacher)
    torch.testing.assert_close(loss.mean(), F.mse_loss(*maps))
    cosine = F.cosine_similarity(*maps)
    torch.testing.assert_close(loss, (2 - 2 * cosine) / 16)  # ||q - r||^2 of unit vectors


def test_zero_at_equality_and_whatever_the_channels_order_sign_and_scale():
    maps = normal(5, 7, 4, 4)
    assert torch.equal(attention_transfer(maps, maps.clone()), torch.zeros(5))
    for same in (
        3 * maps,
        -maps,
        maps[:, torch.tensor([3, 1, 0, 2, 6, 5, 4])],
        maps.repeat(1, 2, 1, 1),
    ):
        loss = attention_transfer(same, maps)
        torch.testing.assert_close(loss, torch.zeros(5), atol=1e-12, rtol=0)


def test_maps_of_other_sizes_are_averaged_to_the_smaller():
    large, small = normal(2, 3, 8, 4), normal(2, 5, 2, 4, seed=1)
    a, b = pool_to_smaller(large, small)
    torch.testing.assert_close(a, large.reshape(2, 3, 2, 4, 4).mean(3))
    assert b is small
    both = pool_to_smaller(normal(2, 3, 8, 2), normal(2, 3, 4, 6))
    assert [x.shape[2:] for x in both] == [(4, 2), (4, 2)]
    series = pool_to_smaller(normal(2, 3, 5), normal(2, 4, 10, seed=1))
    torch.testing.assert_close(series[1], normal(2, 4, 10, seed=1).unflatten(2, (5, 2)).mean(3))
    torch.testing.assert_close(attention_transfer(large, small), attention_transfer(a, b))


def test_gradient_reaches_the_student_and_only_the_student():
    student, teacher = normal(5, 7, 4, 4).requires_grad_(), normal(5, 3, 4, 4).requires_grad_()
    attention_transfer(student, teacher).sum().backward()
    assert (student.grad.flatten(1).abs().sum(1) > 0).all()
    assert teacher.grad is None


def test_a_silent_map_is_finite_and_gets_no_gradient():
    student = torch.zeros(1, 2, 3, 3, requires_grad=True)
    loss = attention_transfer(student, normal(1, 2, 3, 3))
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    torch.testing.assert_close(loss, torch.tensor([1 / 9]))
    assert torch.equal(gradient, torch.zeros_like(student))


def test_every_argument_changes_the_result():
    student, teacher, other = (normal(5, 7, 4, 4, seed=seed) for seed in range(3))
    base = attention_transfer(student, teacher)
    assert base.shape == (5,)
    assert not torch.allclose(base, attention_transfer(other, teacher))
    assert not torch.allclose(base, attention_transfer(student, other))
    assert not torch.allclose(base, attention_transfer(student, teacher, power=4.0))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_finite_at_extreme_activations(dtype):
    student = torch.tensor([1e4, 0.0, 1e-4, -1e4], dtype=dtype).view(1, 1, 2, 2).requires_grad_()
    loss = attention_transfer(
        student, torch.tensor([-1e4, 1e4, 0, 0], dtype=dtype).view(1, 1, 2, 2)
    )
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_computed_in_float32_under_autocast(dtype):
    student, teacher = normal(5, 7, 4, 4).to(dtype), normal(5, 3, 2, 2).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        loss = attention_transfer(student, teacher)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, attention_transfer(student.float(), teacher.float()))
