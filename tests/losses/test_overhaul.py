import pytest
import torch

from kd_lightning.losses.feature_loss import ShapeMismatch
from kd_lightning.losses.overhaul import Overhaul, negative_means, partial_squared_distance


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(student, teacher):
    torch.manual_seed(0)
    return Overhaul(student_shape=student.shape[1:], teacher_shape=teacher.shape[1:])


def test_a_student_below_a_target_that_is_not_positive_has_nothing_to_learn():
    student = torch.tensor([[-3.0, -1.0, 2.0, -1.0, -0.5, 1.0]])
    target = torch.tensor([[-2.0, -1.0, -1.0, 3.0, -2.0, 0.0]])
    counted = torch.tensor([[0.0, 0.0, 9.0, 16.0, 2.25, 1.0]])
    torch.testing.assert_close(partial_squared_distance(student, target), counted.mean(1))


def test_the_margin_is_the_mean_of_the_negative_values_of_a_channel():
    maps = torch.tensor([[[1.0, -2.0], [3.0, 4.0]], [[-4.0, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(negative_means(maps), torch.tensor([[-3.0], [0.0]]))


@pytest.mark.parametrize("sizes", [(8,), (4, 8)])
def test_the_regression_is_compared_with_the_teacher_above_its_margin(sizes):
    student, teacher = normal(5, 3, *sizes), normal(5, 7, *sizes, seed=1)
    loss = build(student, teacher)
    made = loss.regressor(student)
    margins = [teacher[:, c][teacher[:, c] < 0].mean() for c in range(7)]
    target = torch.stack([teacher[:, c].clamp(min=margins[c]) for c in range(7)], dim=1)
    apart = torch.where((made <= target) & (target <= 0), 0, (made - target) ** 2)
    torch.testing.assert_close(loss(student, teacher), apart.flatten(1).mean(1))


def test_its_weight_times_the_mean_is_a_thousandth_of_the_sum():
    loss = build(normal(1, 3, 8, 4), normal(1, 7, 4, 8))
    assert loss.field_weight == pytest.approx(7 * 4 * 4 / 1000)
    stages = [(64, 32, 32), (128, 16, 16), (256, 8, 8)]  # of a resnet32x4
    weights = [Overhaul(student_shape=s, teacher_shape=s).field_weight for s in stages]
    halved = [weight / 2**later for weight, later in zip(weights, (2, 1, 0), strict=True)]
    assert halved == pytest.approx([16.384] * 3)


def test_the_regression_starts_with_he_initialization_of_its_outputs():
    weight = build(normal(1, 500, 2, 2), normal(1, 800, 2, 2)).regressor[0].weight
    assert weight.std().item() == pytest.approx((2 / 800) ** 0.5, rel=0.01)


def test_a_more_negative_teacher_is_no_other_target_where_it_stays_below_the_margin():
    student, teacher = normal(5, 3, 4, 4), torch.full((5, 2, 4, 4), -1.0)
    teacher[0, :, 0, 0], teacher[1, :, 0, 0] = -5.0, -9.0
    loss = build(student, teacher)
    swapped = teacher.clone()
    swapped[0, :, 0, 0], swapped[1, :, 0, 0] = -9.0, -5.0
    assert torch.equal(loss(student, teacher), loss(student, swapped))


def test_the_larger_map_is_pooled_to_the_size_of_the_smaller():
    student, teacher = normal(5, 3, 8, 8), normal(5, 7, 4, 4, seed=1)
    pooled = torch.nn.functional.avg_pool2d(student, 2)
    loss = build(student, teacher)
    torch.testing.assert_close(loss(student, teacher), loss(pooled, teacher))


def test_the_gradient_goes_to_the_student_and_the_regressor_alone():
    student, teacher = normal(5, 3, 4, 4).requires_grad_(), normal(5, 7, 4, 4).requires_grad_()
    loss = build(student, teacher)
    loss(student, teacher).sum().backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


@pytest.mark.parametrize("sign", [1, -1])
def test_one_sample_is_finite_with_and_without_negative_values(sign):
    student, teacher = normal(1, 3, 2, 2), sign * normal(1, 7, 2, 2).abs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = build(student, teacher)(student, teacher)
    assert value.dtype == torch.float32
    assert value.isfinite().all()


@pytest.mark.parametrize("sizes", [(), (1, 1)])
def test_layers_without_positions_are_refused(sizes):
    with pytest.raises(ShapeMismatch, match="OFD compares maps, which have channels and more"):
        build(normal(1, 3, *sizes), normal(1, 3, *sizes))
