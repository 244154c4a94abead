import math

import pytest
import torch
from torch import nn

from kd_lightning.losses.feature_loss import ShapeMismatch
from kd_lightning.losses.vid import VariationalInformation


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(student, teacher, **options):
    torch.manual_seed(0)
    shapes = {"student_shape": student.shape[1:], "teacher_shape": teacher.shape[1:]}
    return VariationalInformation(**shapes, **options)


@pytest.mark.parametrize("sizes", [(), (8,), (4, 8)])
@pytest.mark.parametrize("variance", [0.01, 5.0, 300.0])
def test_it_is_the_likelihood_of_a_normal_distribution_without_its_constant(sizes, variance):
    student, teacher = normal(5, 3, *sizes), normal(5, 7, *sizes, seed=1)
    loss = build(student, teacher, initial_variance=variance)
    density = torch.distributions.Normal(loss.regressor(student), variance**0.5)
    expected = -density.log_prob(teacher).flatten(1).mean(1) - math.log(2 * math.pi) / 2
    torch.testing.assert_close(loss(student, teacher), expected, rtol=1e-4, atol=1e-5)


def test_the_mean_of_maps_is_three_convolutions_without_bias_with_a_relu_between_them():
    student, teacher = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[-1.0, 2.0]]])
    loss = build(student, teacher)
    for weight, value in zip(loss.regressor.parameters(), [2.0, 3.0, -0.5], strict=True):
        nn.init.constant_(weight, value)
    # the means are -0.5 * relu(3 * relu(2 * s)) = -3 and 0, so both errors are 2
    expected = torch.tensor([0.5 * (4 / 5 + math.log(5))])
    torch.testing.assert_close(loss(student, teacher), expected)


def test_a_channel_with_a_large_variance_counts_less():
    student, teacher = normal(5, 2), normal(5, 2, seed=1)
    loss = build(student, teacher)
    nn.init.eye_(loss.regressor.weight)
    nn.init.zeros_(loss.regressor.bias)
    with torch.no_grad():
        loss.raw_variance.copy_(torch.tensor([1.0, 4.0]).expm1().log())
    squared = (student - teacher).square()
    expected = 0.5 * (squared / torch.tensor([1.0, 4.0])).mean(1) + 0.25 * math.log(4)
    torch.testing.assert_close(loss(student, teacher), expected, rtol=1e-4, atol=1e-4)


def test_the_variance_learns_the_error_that_remains():
    student = normal(512, 1)
    teacher = torch.cat([student, normal(512, 1, seed=1)], dim=1)  # one is known, one is noise
    loss = build(student, teacher, initial_variance=1.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss(student, teacher).mean().backward()
        optimizer.step()
    known, noise = nn.functional.softplus(loss.raw_variance).tolist()
    assert known < 0.1
    assert noise == pytest.approx(1.0, abs=0.2)
    assert loss(student, teacher).mean() < 0  # nats below zero where the regression is sure


def test_the_gradient_goes_to_the_student_and_to_all_that_learns():
    student, teacher = normal(5, 3, 4, 4).requires_grad_(), normal(5, 7, 2, 2).requires_grad_()
    loss = build(student, teacher)
    loss(student, teacher).sum().backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_one_sample_and_half_precision_are_finite():
    student, teacher = normal(1, 3, 4, 4), normal(1, 7, 4, 4, seed=1)
    loss = build(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, 1e4 * teacher)
    assert value.dtype == torch.float32
    assert value.isfinite().all()


@pytest.mark.parametrize("variance", [0.0, -1.0, float("inf")])
def test_a_bad_variance_is_told(variance):
    with pytest.raises(ValueError, match=f"initial_variance must be > 1e-05, got {variance}"):
        build(normal(1, 3), normal(1, 3), initial_variance=variance)


def test_a_vector_and_a_map_are_refused():
    with pytest.raises(ShapeMismatch, match="VID compares vectors with vectors"):
        build(normal(1, 3), normal(1, 3, 4, 4))
