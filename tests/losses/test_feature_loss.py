import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kd_lightning.losses.attention_transfer import AttentionTransfer, attention_transfer
from kd_lightning.losses.feature_loss import ShapeMismatch
from kd_lightning.losses.fitnet import FitNet
from kd_lightning.losses.relational import Relational, relational_angle, relational_distance


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(kind, student, teacher, **options):
    torch.manual_seed(0)
    shapes = {"student_shape": student.shape[1:], "teacher_shape": teacher.shape[1:]}
    return kind(**shapes, **options)


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 5, 4)])
@pytest.mark.parametrize("kind", [FitNet, Relational, AttentionTransfer])
def test_equal_layers_have_no_loss_and_need_no_regressor(kind, shape):
    if kind is AttentionTransfer and len(shape) == 1:
        shape = (6, 2, 2)
    x = normal(5, *shape)
    loss = made(kind, x, x)
    assert torch.equal(loss(x, x.clone()), torch.zeros(5))
    assert not list(loss.parameters())


@pytest.mark.parametrize(
    ("sizes", "regressor"), [((), nn.Linear), ((8,), nn.Conv1d), ((4, 8), nn.Conv2d)]
)
def test_fitnet_compares_with_what_its_regressor_makes_of_the_student(sizes, regressor):
    student, teacher = normal(5, 3, *sizes), normal(5, 7, *sizes, seed=1)
    loss = made(FitNet, student, teacher)
    assert type(loss.regressor) is regressor
    weight, bias = loss.regressor.weight.flatten(1), loss.regressor.bias
    channels_last = student.movedim(1, -1) @ weight.T + bias
    expected = (channels_last.movedim(-1, 1) - teacher).square().flatten(1).mean(1)
    torch.testing.assert_close(loss(student, teacher), expected)


@pytest.mark.parametrize("student_is_larger", [True, False])
def test_fitnet_averages_the_larger_map_to_the_size_of_the_smaller(student_is_larger):
    student, teacher = normal(5, 3, 8, 8), normal(5, 7, 4, 4, seed=1)
    if not student_is_larger:
        student, teacher = normal(5, 3, 4, 4), normal(5, 7, 8, 8, seed=1)
    loss = made(FitNet, student, teacher)
    expected = F.adaptive_avg_pool2d(loss.regressor(student), 4) - F.adaptive_avg_pool2d(teacher, 4)
    torch.testing.assert_close(loss(student, teacher), expected.square().flatten(1).mean(1))


def test_the_regressor_learns_until_the_student_tells_the_teacher_by_it():
    student = normal(64, 3)
    teacher = student @ normal(3, 7, seed=1)
    loss = made(FitNet, student, teacher)
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    first = loss(student, teacher).mean()
    for _ in range(100):
        optimizer.zero_grad()
        loss(student, teacher).mean().backward()
        optimizer.step()
    assert loss(student, teacher).mean() < 1e-3 * first


@pytest.mark.parametrize("kind", [FitNet, AttentionTransfer, Relational])
def test_gradient_reaches_the_student_and_only_the_student(kind):
    student, teacher = normal(5, 3, 4, 4).requires_grad_(), normal(5, 7, 4, 4).requires_grad_()
    made(kind, student, teacher)(student, teacher).sum().backward()
    assert (student.grad.flatten(1).abs().sum(1) > 0).all()
    assert teacher.grad is None


def test_attention_transfer_is_that_of_maps_with_this_power():
    student, teacher = normal(5, 3, 4, 4), normal(5, 7, 2, 2, seed=1)
    for power in (1.0, 2.0):
        loss = made(AttentionTransfer, student, teacher, power=power)
        assert torch.equal(loss(student, teacher), attention_transfer(student, teacher, power))


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_attention_transfer_has_a_gradient_where_a_relu_is_off(power):
    student = normal(5, 3, 4, 4).relu().requires_grad_()
    made(AttentionTransfer, student, student, power=power)(
        student, normal(5, 3, 4, 4, seed=1)
    ).sum().backward()
    assert student.grad.isfinite().all()


def test_attention_transfer_refuses_a_power_without_one():
    with pytest.raises(ValueError, match=r"power must be >= 1, got 0\.5"):
        made(AttentionTransfer, normal(5, 3, 4, 4), normal(5, 3, 4, 4), power=0.5)


def test_relational_is_the_weighted_sum_of_distances_and_angles():
    student, teacher = normal(5, 3, 4, 4), normal(5, 7, seed=1)
    distance = relational_distance(student.flatten(1), teacher)
    angle = relational_angle(student.flatten(1), teacher)
    for d, a in ((25.0, 50.0), (1.0, 0.0), (0.0, 2.0)):
        loss = made(Relational, student, teacher, distance_weight=d, angle_weight=a)
        torch.testing.assert_close(loss(student, teacher), d * distance + a * angle)
    default = made(Relational, student, teacher)(student, teacher)
    torch.testing.assert_close(default, 25 * distance + 50 * angle)


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
def test_layers_that_cannot_be_compared_are_refused_with_their_shapes(kind, student, teacher):
    with pytest.raises(ShapeMismatch) as refused:
        kind(student_shape=student, teacher_shape=teacher)
    for shape in (student, teacher):
        assert f"a {'map' if shape[1:] else 'vector'} of {' x '.join(map(str, shape))}" in str(
            refused.value
        )


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (AttentionTransfer, {"power": 0.0}, "power must be >= 1, got 0.0"),
        (Relational, {"distance_weight": -1.0}, "must be >= 0, and one of them > 0, got -1.0 and"),
        (Relational, {"distance_weight": 0.0, "angle_weight": 0.0}, "got 0.0 and 0.0"),
        (Relational, {"angle_weight": float("nan")}, "got 25.0 and nan"),
    ],
)
def test_bad_options_say_what_came(kind, options, said):
    with pytest.raises(ValueError, match=said) as refused:
        kind(student_shape=(4, 2, 2), teacher_shape=(4, 2, 2), **options)
    assert not isinstance(refused.value, ShapeMismatch)


@pytest.mark.parametrize("kind", [FitNet, AttentionTransfer, Relational])
def test_losses_are_in_float32_under_autocast(kind):
    student, teacher = normal(5, 3, 4, 4).bfloat16(), normal(5, 7, 2, 2, seed=1).bfloat16()
    loss = made(kind, student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.float(), teacher.float()), rtol=2e-2, atol=1e-3)
