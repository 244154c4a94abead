import math

import pytest
import torch
from scipy import stats

from kd_lightning.losses.logit_standardization import standardize
from kd_lightning.losses.soft_targets import soft_target_kl

HALVES = [torch.bfloat16, torch.float16]


def normal(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_value_by_hand():
    values = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 4.0, 0.0]])
    a, b = math.sqrt(3 / 2), math.sqrt(3 / 2)
    torch.testing.assert_close(standardize(values), torch.tensor([[-a, 0, a], [-b, b, 0]]))


@pytest.mark.parametrize("dim", [0, 1])
def test_agrees_with_scipy(dim):
    values = normal(6, 10) + 50
    expected = torch.from_numpy(stats.zscore(values.double().numpy(), axis=dim))
    torch.testing.assert_close(standardize(values, dim).double(), expected, rtol=1e-4, atol=1e-5)


def test_mean_and_scale_do_not_matter():
    values, other = normal(6, 10), normal(6, 10, seed=1)
    mean, scale = normal(6, 1, seed=2), normal(6, 1, seed=3).exp()
    torch.testing.assert_close(standardize(scale * values + mean), standardize(values))
    assert not torch.allclose(standardize(other), standardize(values))
    assert not torch.allclose(standardize(values, 0), standardize(values, 1))


def test_a_student_with_the_teachers_pattern_at_another_scale_has_nothing_to_learn():
    teacher = normal(6, 10)
    student = (0.1 * teacher - 3).requires_grad_()
    assert soft_target_kl(student, teacher, 2.0).min() > 0.1
    loss = soft_target_kl(standardize(student), standardize(teacher), 2.0)
    torch.testing.assert_close(loss, torch.zeros(6), atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    torch.testing.assert_close(gradient, torch.zeros(6, 10), atol=1e-5, rtol=0)


def test_gradient_is_the_numerical_gradient():
    values, direction = normal(3, 5).requires_grad_(), normal(3, 5, seed=1)

    def along(values):
        return (standardize(values).double() * direction).sum()

    (gradient,) = torch.autograd.grad(along(values), values)
    for i in range(5):
        move = torch.zeros(3, 5)
        move[0, i] = 1e-2
        slope = (along(values.detach() + move) - along(values.detach() - move)) / 2e-2
        assert slope.item() == pytest.approx(gradient[0, i].item(), rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3, 1e4, 1e-30])
def test_constants_become_zero_and_get_no_gradient(constant):
    # the mean of ten equal numbers is not always that number
    values = torch.full((1, 10), constant)
    values = torch.cat([values, normal(1, 10)]).requires_grad_()
    standardized = standardize(values)
    (gradient,) = torch.autograd.grad(
        standardized.square().sum() + standardized[:, 0].sum(), values
    )
    assert torch.equal(standardized[0], torch.zeros(10))
    assert torch.equal(gradient[0], torch.zeros(10))
    assert gradient[1].abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_finite_at_extreme_values(dtype):
    values = torch.tensor([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4], [0.0, 1e-3, 0.0]], dtype=dtype)
    values.requires_grad_()
    standardized = standardize(values)
    (gradient,) = torch.autograd.grad(standardized[:, 0].sum(), values)
    assert standardized.dtype == torch.float32
    assert standardized.isfinite().all()
    assert gradient.isfinite().all()
    assert standardize(torch.full((1, 3), math.nan)).isnan().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_computed_in_float32_under_autocast(dtype):
    values = normal(6, 10).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        found = standardize(values)
    assert torch.equal(found, standardize(values.float()))
