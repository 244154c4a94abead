import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.attention_transfer import (
    AttentionTransfer,
    attention_map,
    attention_transfer_loss,
)
from kd_lightning.losses.feature_loss import pool_to_smaller

HALVES = [torch.bfloat16, torch.float16]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_map_by_hand():
    maps = torch.tensor([[[[1.0, 0.0]], [[-1.0, 2.0]]]])  # sums of squares: 2 and 4
    expected = torch.tensor([[2.0, 4.0]]) / 20**0.5
    torch.testing.assert_close(attention_map(maps), expected)
    absolute = torch.tensor([[2.0, 2.0]]) / 8**0.5
    torch.testing.assert_close(attention_map(maps, power=1.0), absolute)


def test_loss_by_hand():
    student = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]])
    teacher = torch.tensor([[[[0.0, 3.0]]], [[[3.0**0.5, 2.0]]]])  # maps (0, 1) and (.6, .8)
    expected = torch.tensor([(1 + 1) / 2, (0.4**2 + 0.8**2) / 2])
    torch.testing.assert_close(attention_transfer_loss(student, teacher), expected)


def test_loss_agrees_with_the_formula_in_torch():
    student, teacher = normal(5, 7, 4, 4), normal(5, 3, 4, 4, seed=1)
    maps = [F.normalize(x.square().mean(1).flatten(1)) for x in (student, teacher)]
    loss = attention_transfer_loss(student, teacher)
    torch.testing.assert_close(loss.mean(), F.mse_loss(*maps))
    cosine = F.cosine_similarity(*maps)
    torch.testing.assert_close(loss, (2 - 2 * cosine) / 16)  # ||q - r||^2 of unit vectors


def test_zero_for_equal_maps_and_for_any_order_signs_and_scale_of_the_channels():
    maps = normal(5, 7, 4, 4)
    assert torch.equal(attention_transfer_loss(maps, maps.clone()), torch.zeros(5))
    for same in (
        3 * maps,
        -maps,
        maps[:, torch.tensor([3, 1, 0, 2, 6, 5, 4])],
        maps.repeat(1, 2, 1, 1),
    ):
        loss = attention_transfer_loss(same, maps)
        torch.testing.assert_close(loss, torch.zeros(5), atol=1e-12, rtol=0)


def test_maps_of_different_sizes_are_pooled_first():
    large, small = normal(2, 3, 8, 4), normal(2, 5, 2, 4, seed=1)
    pooled = pool_to_smaller(large, small)
    torch.testing.assert_close(
        attention_transfer_loss(large, small), attention_transfer_loss(*pooled)
    )


def test_gradient_reaches_the_student_and_only_the_student():
    student, teacher = normal(5, 7, 4, 4).requires_grad_(), normal(5, 3, 4, 4).requires_grad_()
    attention_transfer_loss(student, teacher).sum().backward()
    assert (student.grad.flatten(1).abs().sum(1) > 0).all()
    assert teacher.grad is None


def test_a_map_of_zeros_is_finite_and_gets_no_gradient():
    student = torch.zeros(1, 2, 3, 3, requires_grad=True)
    loss = attention_transfer_loss(student, normal(1, 2, 3, 3))
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    torch.testing.assert_close(loss, torch.tensor([1 / 9]))
    assert torch.equal(gradient, torch.zeros_like(student))


def test_every_argument_changes_the_result():
    student, teacher, other = (normal(5, 7, 4, 4, seed=seed) for seed in range(3))
    base = attention_transfer_loss(student, teacher)
    assert base.shape == (5,)
    assert not torch.allclose(base, attention_transfer_loss(other, teacher))
    assert not torch.allclose(base, attention_transfer_loss(student, other))
    assert not torch.allclose(base, attention_transfer_loss(student, teacher, power=4.0))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_finite_at_extreme_activations(dtype):
    student = torch.tensor([1e4, 0.0, 1e-4, -1e4], dtype=dtype).view(1, 1, 2, 2).requires_grad_()
    loss = attention_transfer_loss(
        student, torch.tensor([-1e4, 1e4, 0, 0], dtype=dtype).view(1, 1, 2, 2)
    )
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_computed_in_float32_under_autocast(dtype):
    student, teacher = normal(5, 7, 4, 4).to(dtype), normal(5, 3, 2, 2).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        loss = attention_transfer_loss(student, teacher)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, attention_transfer_loss(student.float(), teacher.float()))


def of_pair(student, teacher, **options):
    return AttentionTransfer(
        student_shape=student.shape[1:], teacher_shape=teacher.shape[1:], **options
    )


def test_the_class_computes_the_loss_with_its_power():
    student, teacher = normal(5, 3, 4, 4), normal(5, 7, 2, 2, seed=1)
    for power in (1.0, 2.0):
        loss = of_pair(student, teacher, power=power)
        assert torch.equal(loss(student, teacher), attention_transfer_loss(student, teacher, power))


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_gradient_is_finite_where_a_relu_is_off(power):
    student = normal(5, 3, 4, 4).relu().requires_grad_()
    of_pair(student, student, power=power)(student, normal(5, 3, 4, 4, seed=1)).sum().backward()
    assert student.grad.isfinite().all()


def test_a_power_below_one_raises_an_error():
    with pytest.raises(ValueError, match=r"power must be >= 1, got 0\.5"):
        of_pair(normal(5, 3, 4, 4), normal(5, 3, 4, 4), power=0.5)
