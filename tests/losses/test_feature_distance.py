import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.feature_distance import (
    active_squared_distance,
    feature_cosine,
    feature_mse,
)

HALVES = [torch.bfloat16, torch.float16]
LOSSES = [feature_mse, feature_cosine, active_squared_distance]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mse_by_hand():
    student, target = (
        torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
        torch.tensor([[4.0, -2.0], [1.0, 0.0]]),
    )
    assert torch.equal(feature_mse(student, target), torch.tensor([12.5, 0.5]))


def test_active_squared_distance_by_hand():
    student = torch.tensor([[1.0, 0.0, -2.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    target = torch.tensor([[4.0, 0.0, 1.0, -3.0], [0.0, -5.0, 0.0, 2.0]])
    distance = active_squared_distance(student, target)  # the pairs (-1, -3), (0, -5) count nothing
    assert torch.equal(distance, torch.tensor([9.0 + 9.0, 4.0]))
    assert torch.equal(active_squared_distance(target, target), torch.zeros(2))


def test_active_squared_distance_is_the_squared_distance_of_features_after_a_relu():
    student, target = normal(5, 7).relu(), normal(5, 7, seed=1).relu()
    torch.testing.assert_close(
        active_squared_distance(student, target), 7 * feature_mse(student, target)
    )


def test_cosine_by_hand():
    student = torch.tensor([[3.0, 4.0]] * 4)
    target = torch.tensor([[1.0, 0.0], [-6.0, -8.0], [-4.0, 3.0], [0.0, 0.0]])
    torch.testing.assert_close(
        feature_cosine(student, target), torch.tensor([1 - 0.6, 2.0, 1.0, 1.0])
    )


def test_losses_agree_with_torch():
    student, target = normal(5, 7), normal(5, 7, seed=1)
    torch.testing.assert_close(feature_mse(student, target).mean(), F.mse_loss(student, target))
    embedding = F.cosine_embedding_loss(student, target, torch.ones(5), reduction="none")
    torch.testing.assert_close(feature_cosine(student, target), embedding)


def test_zero_when_student_equals_teacher():
    features = normal(5, 7)
    assert torch.equal(feature_mse(features, features.clone()), torch.zeros(5))
    same_angle = feature_cosine(features, 3 * features)
    torch.testing.assert_close(same_angle, torch.zeros(5), atol=1e-6, rtol=0)


def test_mse_does_not_depend_on_the_number_of_features():
    student, target = normal(5, 7), normal(5, 7, seed=1)
    repeated = feature_mse(student.repeat(1, 4), target.repeat(1, 4))
    torch.testing.assert_close(repeated, feature_mse(student, target))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_reaches_both_arguments_unless_detached(loss):
    student, target = normal(5, 7).requires_grad_(), normal(5, 7, seed=1).requires_grad_()
    loss(student, target.detach()).sum().backward()
    assert (student.grad.abs().sum(1) > 0).all()
    assert target.grad is None
    loss(student, target).sum().backward()  # needed for a target that the student has chosen
    assert (target.grad.abs().sum(1) > 0).all()


def test_zero_features_have_no_angle_and_no_gradient():
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    loss = feature_cosine(student, torch.ones(2, 2))
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert loss[0] == 1
    assert torch.equal(gradient[0], torch.zeros(2))
    assert gradient[1].abs().sum() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_every_argument_changes_the_result(loss):
    student, target, other = (normal(5, 7, seed=seed) for seed in range(3))
    base = loss(student, target)
    assert base.shape == (5,)
    assert not torch.allclose(base, loss(other, target))
    assert not torch.allclose(base, loss(student, other))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("loss", LOSSES)
def test_finite_at_extreme_features(loss, dtype):
    student = torch.tensor([[1e4] * 64, [0.0] * 64], dtype=dtype, requires_grad=True)
    value = loss(student, torch.tensor([[-1e4] * 64, [1e4] * 64], dtype=dtype))
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("loss", LOSSES)
def test_computed_in_float32_under_autocast(loss, dtype):
    student, target = normal(5, 7).to(dtype), normal(5, 7, seed=1).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        value = loss(student, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(student.float(), target.float()))
