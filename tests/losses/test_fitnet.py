import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kd_lightning.losses.fitnet import FitNet


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(student, teacher):
    torch.manual_seed(0)
    return FitNet(student_shape=student.shape[1:], teacher_shape=teacher.shape[1:])


@pytest.mark.parametrize(
    ("sizes", "regressor"), [((), nn.Linear), ((8,), nn.Conv1d), ((4, 8), nn.Conv2d)]
)
def test_the_regression_of_the_student_is_compared_with_the_teacher(sizes, regressor):
    student, teacher = normal(5, 3, *sizes), normal(5, 7, *sizes, seed=1)
    loss = build(student, teacher)
    assert type(loss.regressor) is regressor
    weight, bias = loss.regressor.weight.flatten(1), loss.regressor.bias
    channels_last = student.movedim(1, -1) @ weight.T + bias
    expected = (channels_last.movedim(-1, 1) - teacher).square().flatten(1).mean(1)
    torch.testing.assert_close(loss(student, teacher), expected)


@pytest.mark.parametrize("student_is_larger", [True, False])
def test_the_larger_map_is_pooled_to_the_size_of_the_smaller(student_is_larger):
    student, teacher = normal(5, 3, 8, 8), normal(5, 7, 4, 4, seed=1)
    if not student_is_larger:
        student, teacher = normal(5, 3, 4, 4), normal(5, 7, 8, 8, seed=1)
    loss = build(student, teacher)
    expected = F.adaptive_avg_pool2d(loss.regressor(student), 4) - F.adaptive_avg_pool2d(teacher, 4)
    torch.testing.assert_close(loss(student, teacher), expected.square().flatten(1).mean(1))


def test_the_regressor_learns_the_map_from_student_to_teacher():
    student = normal(64, 3)
    teacher = student @ normal(3, 7, seed=1)
    loss = build(student, teacher)
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    first = loss(student, teacher).mean()
    for _ in range(100):
        optimizer.zero_grad()
        loss(student, teacher).mean().backward()
        optimizer.step()
    assert loss(student, teacher).mean() < 1e-3 * first
