"""What all feature losses promise, and what they share."""

import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.attention_transfer import AttentionTransfer
from kd_lightning.losses.feature_loss import (
    ShapeMismatch,
    average_pool,
    pool_to_smaller,
    pooled,
    unit_features,
)
from kd_lightning.losses.fitnet import FitNet
from kd_lightning.losses.relational import Relational


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(kind, student, teacher, **options):
    torch.manual_seed(0)
    shapes = {"student_shape": student.shape[1:], "teacher_shape": teacher.shape[1:]}
    return kind(**shapes, **options)


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 5, 4)])
@pytest.mark.parametrize("kind", [FitNet, Relational, AttentionTransfer])
def test_equal_layers_have_a_loss_of_zero_and_no_regressor(kind, shape):
    if kind is AttentionTransfer and len(shape) == 1:
        shape = (6, 2, 2)
    x = normal(5, *shape)
    loss = build(kind, x, x)
    assert torch.equal(loss(x, x.clone()), torch.zeros(5))
    assert not list(loss.parameters())


@pytest.mark.parametrize("kind", [FitNet, AttentionTransfer, Relational])
def test_gradient_reaches_the_student_and_only_the_student(kind):
    student, teacher = normal(5, 3, 4, 4).requires_grad_(), normal(5, 7, 4, 4).requires_grad_()
    build(kind, student, teacher)(student, teacher).sum().backward()
    assert (student.grad.flatten(1).abs().sum(1) > 0).all()
    assert teacher.grad is None


@pytest.mark.parametrize(
    ("kind", "student", "teacher"),
    [
        (FitNet, (6,), (6, 4, 4)),
        (FitNet, (6, 4), (6, 4, 4)),
        (AttentionTransfer, (6,), (6,)),
        (AttentionTransfer, (6,), (6, 4, 4)),
        (AttentionTransfer, (6, 4), (6, 4, 4)),
        (AttentionTransfer, (6, 1, 1), (6, 4, 4)),  # one position: always equal
        (AttentionTransfer, (6, 4, 1), (6, 1, 4)),
    ],
)
def test_layers_that_cannot_be_compared_raise_an_error_with_their_shapes(kind, student, teacher):
    with pytest.raises(ShapeMismatch) as raised:
        kind(student_shape=student, teacher_shape=teacher)
    for shape in (student, teacher):
        assert f"a {'map' if shape[1:] else 'vector'} of {' x '.join(map(str, shape))}" in str(
            raised.value
        )


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (AttentionTransfer, {"power": 0.0}, "power must be >= 1, got 0.0"),
        (Relational, {"distance_weight": -1.0}, "must be >= 0, and one of them > 0, got -1.0 and"),
        (Relational, {"distance_weight": 0.0, "angle_weight": 0.0}, "got 0.0 and 0.0"),
        (Relational, {"angle_weight": float("nan")}, "got 25.0 and nan"),
    ],
)
def test_invalid_options_raise_an_error_with_their_value(kind, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        kind(student_shape=(4, 2, 2), teacher_shape=(4, 2, 2), **options)
    assert not isinstance(raised.value, ShapeMismatch)


@pytest.mark.parametrize("kind", [FitNet, AttentionTransfer, Relational])
def test_losses_are_float32_under_autocast(kind):
    student, teacher = normal(5, 3, 4, 4).bfloat16(), normal(5, 7, 2, 2, seed=1).bfloat16()
    loss = build(kind, student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.float(), teacher.float()), rtol=2e-2, atol=1e-3)


def test_pooling_averages_the_larger_map_to_the_size_of_the_smaller():
    large, small = normal(2, 3, 8, 4), normal(2, 5, 2, 4, seed=1)
    a, b = pool_to_smaller(large, small)
    torch.testing.assert_close(a, large.reshape(2, 3, 2, 4, 4).mean(3))
    assert b is small
    both = pool_to_smaller(normal(2, 3, 8, 2), normal(2, 3, 4, 6))
    assert [x.shape[2:] for x in both] == [(4, 2), (4, 2)]
    series = pool_to_smaller(normal(2, 3, 5), normal(2, 4, 10, seed=1))
    torch.testing.assert_close(series[1], normal(2, 4, 10, seed=1).unflatten(2, (5, 2)).mean(3))


def test_unit_features_have_length_one_and_zero_features_stay_zero():
    features = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    unit = unit_features(features)
    assert torch.equal(unit, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(unit[:, 0].sum(), features)
    assert torch.equal(gradient[1], torch.zeros(2))


@pytest.mark.parametrize("size", [(5,), (3, 4)])
def test_the_mean_is_over_all_positions_and_a_vector_stays_as_it_is(size):
    maps, vectors = normal(2, 3, *size), normal(2, 3)
    torch.testing.assert_close(pooled(maps), maps.mean(list(range(2, maps.ndim))))
    assert torch.equal(pooled(vectors), vectors)


@pytest.mark.parametrize(
    ("size", "grid"), [((8, 6), (4, 2)), ((7, 6), (4, 3)), ((9,), (3,)), ((9,), (4,)), ((5,), (5,))]
)
def test_average_pooling_is_torchs_adaptive_one(size: tuple, grid: tuple) -> None:
    adaptive = F.adaptive_avg_pool1d if len(size) == 1 else F.adaptive_avg_pool2d
    x = normal(2, 3, *size)
    torch.testing.assert_close(average_pool(x, grid), adaptive(x, grid))


def test_a_grid_that_divides_a_map_needs_no_adaptive_pooling() -> None:
    x = normal(2, 3, 8, 6).requires_grad_()
    names = str(average_pool(x, (4, 2)).grad_fn), str(average_pool(x, (4, 4)).grad_fn)
    assert ["Adaptive" in name for name in names] == [False, True]
