import itertools

import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.relational import Relational, relational_angle, relational_distance

HALVES = [torch.bfloat16, torch.float16]
LOSSES = [relational_distance, relational_angle]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TRIANGLE = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])  # sides 3, 4, 5, of mean 4
LINE = torch.tensor([[0.0], [1.0], [3.0]])  # distances 1, 3, 2, of mean 2


def test_distance_by_hand():
    # relative distances of 01, 02, 12: .5, 1.5, 1 and .75, 1, 1.25
    pairs = {(0, 1): 0.25**2 / 2, (0, 2): 0.5**2 / 2, (1, 2): 0.25**2 / 2}
    means = [sum(v for pair, v in pairs.items() if i in pair) / 2 for i in range(3)]
    torch.testing.assert_close(relational_distance(LINE, TRIANGLE), torch.tensor(means))


def test_distance_is_huber_beyond_one():
    points = torch.tensor([[0.0], [0.0], [0.0], [1.0]])  # mean 1/2: 2 to the last, 0 between others
    around = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    scale = (4 + 2 * 2**0.5) / 6
    side, diagonal = 1 / scale, 2**0.5 / scale
    pairs = ((0.0, diagonal), (0.0, side), (2.0, side))
    huber = [F.huber_loss(*map(torch.tensor, pair)).item() for pair in pairs]
    assert huber[0] == pytest.approx(diagonal - 0.5)  # the difference is beyond 1
    first = relational_distance(points, around)[0]
    assert first.item() == pytest.approx(sum(huber) / 3)


def test_angle_by_hand():
    # cosines at 0, 1, 2: 1, -1, 1 on the line, 0, 3/5, 4/5 in the triangle
    expected = torch.tensor([0.5, 1.6 - 0.5, 0.2**2 / 2])
    torch.testing.assert_close(relational_angle(LINE, TRIANGLE), expected)


def test_losses_agree_with_loops_over_the_definitions():
    student, teacher = normal(5, 3).double(), normal(5, 4, seed=1).double()
    pairs = list(itertools.permutations(range(5), 2))

    def relative(x):
        distance = {(i, j): F.pairwise_distance(x[i], x[j], eps=0) for i, j in pairs}
        return {pair: d / (sum(distance.values()) / 20) for pair, d in distance.items()}

    d_s, d_t = relative(student), relative(teacher)
    distance = [sum(F.smooth_l1_loss(d_s[i, j], d_t[i, j]) for j in range(5) if j != i) / 4
                for i in range(5)]  # fmt: skip
    torch.testing.assert_close(
        relational_distance(student, teacher), torch.stack(distance).float(), check_dtype=False
    )

    def cosine(x, i, j, k):
        return F.cosine_similarity(x[j] - x[i], x[k] - x[i], dim=0)

    angle = torch.zeros(5)
    for i, j, k in itertools.permutations(range(5), 3):
        angle[i] += F.smooth_l1_loss(cosine(student, i, j, k), cosine(teacher, i, j, k)) / 12
    torch.testing.assert_close(relational_angle(student, teacher), angle)


@pytest.mark.parametrize("loss", LOSSES)
def test_zero_for_any_rotation_reflection_translation_and_scale(loss):
    features = normal(6, 4)
    assert torch.equal(loss(features, features.clone()), torch.zeros(6))
    rotated = features @ torch.linalg.qr(normal(4, 4, seed=1)).Q
    reflected = features * torch.tensor([1.0, -1.0, 1.0, 1.0])
    embedded = F.pad(features, (0, 3))
    for same in (rotated, reflected, embedded, 7 * features, features + 2):
        torch.testing.assert_close(loss(same, features), torch.zeros(6), atol=1e-9, rtol=0)
    assert (loss(features * torch.tensor([9.0, 1.0, 1.0, 1.0]), features) > 1e-3).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_order_of_the_samples_does_not_matter(loss):
    student, teacher = normal(6, 3), normal(6, 4, seed=1)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(loss(student, teacher)[order], loss(student[order], teacher[order]))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_reaches_the_student_and_only_the_student(loss):
    student, teacher = normal(5, 7).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    loss(student, teacher).sum().backward()
    assert (student.grad.abs().sum(1) > 0).all()
    assert teacher.grad is None


@pytest.mark.parametrize("loss", LOSSES)
def test_both_arguments_change_the_result(loss):
    student, teacher, other = (normal(5, 7, seed=seed) for seed in range(3))
    base = loss(student, teacher)
    assert base.shape == (5,)
    assert not torch.allclose(base, loss(other, teacher))
    assert not torch.allclose(base, loss(student, other))


@pytest.mark.parametrize("too_few", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_relations_has_a_loss_of_zero(loss, too_few):
    student = normal(too_few, 4).requires_grad_()
    value = loss(student, normal(too_few, 4, seed=1))
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert torch.equal(value, torch.zeros(too_few))
    assert torch.equal(gradient, torch.zeros_like(student))
    assert (loss(normal(3, 4), normal(3, 4, seed=1)) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("loss", LOSSES)
def test_finite_for_equal_and_for_extreme_samples(loss, dtype):
    equal = torch.zeros(4, 3, dtype=dtype)
    extreme = torch.tensor([[1e4] * 3, [1e4] * 3, [-1e4] * 3, [0.0] * 3], dtype=dtype)
    for student, teacher in itertools.product((equal, extreme), repeat=2):
        student = student.clone().requires_grad_()
        value = loss(student, teacher)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("loss", LOSSES)
def test_computed_in_float32_under_autocast(loss, dtype):
    student, teacher = normal(5, 7).to(dtype), normal(5, 3, seed=1).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(student.float(), teacher.float()))


def of_pair(student, teacher, **options):
    return Relational(student_shape=student.shape[1:], teacher_shape=teacher.shape[1:], **options)


def test_the_class_computes_the_weighted_sum_of_distances_and_angles():
    student, teacher = normal(5, 3, 4, 4), normal(5, 7, seed=1)
    distance = relational_distance(student.flatten(1), teacher)
    angle = relational_angle(student.flatten(1), teacher)
    for d, a in ((25.0, 50.0), (1.0, 0.0), (0.0, 2.0)):
        loss = of_pair(student, teacher, distance_weight=d, angle_weight=a)
        torch.testing.assert_close(loss(student, teacher), d * distance + a * angle)
    default = of_pair(student, teacher)(student, teacher)
    torch.testing.assert_close(default, 25 * distance + 50 * angle)
