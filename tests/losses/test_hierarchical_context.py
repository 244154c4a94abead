import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.hierarchical_context import hierarchical_context_loss


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("side", "grids"), [(8, (4, 2, 1)), (5, (4, 2, 1)), (4, (2, 1)), (2, (1,)), (1, ())]
)
def test_the_map_and_the_smaller_grids_have_halved_weights_of_sum_one(side, grids):
    student, teacher = normal(3, 6, side, side), normal(3, 6, side, side, seed=1)
    difference = student - teacher
    expected = difference.square().flatten(1).mean(1)
    for level, grid in enumerate(grids, 1):
        pooled = F.adaptive_avg_pool2d(difference, grid)
        expected = expected + pooled.square().flatten(1).mean(1) / 2**level
    expected = expected / sum(0.5**level for level in range(len(grids) + 1))
    torch.testing.assert_close(hierarchical_context_loss(student, teacher), expected)


def test_a_difference_in_the_mean_counts_more_than_one_that_cancels():
    teacher = torch.zeros(1, 1, 8)
    shifted, alternating = torch.ones(1, 1, 8), torch.tensor([1.0, -1.0] * 4).view(1, 1, 8)
    assert hierarchical_context_loss(shifted, teacher).item() == pytest.approx(1)
    assert hierarchical_context_loss(alternating, teacher).item() == pytest.approx(1 / 1.875)


def test_zero_when_equal_and_the_gradient_goes_to_the_student_alone():
    student, teacher = normal(2, 3, 8).requires_grad_(), normal(2, 3, 8, seed=1).requires_grad_()
    assert not hierarchical_context_loss(student, student).any()
    hierarchical_context_loss(student, teacher).sum().backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_computed_in_float32():
    student, teacher = normal(2, 3, 8).bfloat16(), normal(2, 3, 8, seed=1).bfloat16()
    value = hierarchical_context_loss(student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, hierarchical_context_loss(student.float(), teacher.float()))
