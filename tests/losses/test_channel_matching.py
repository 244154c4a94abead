"""Channel matching: similarity, assignments, the ridge, and the loss of matched channels."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.channel_matching import (
    MATCHINGS,
    MatchedChannels,
    channel_correlation,
    greedy,
    one_to_one,
    ridge_matrix,
)
from kd_lightning.losses.feature_loss import ShapeMismatch, pooled


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(student: Tensor, teacher: Tensor, **options: object) -> MatchedChannels:
    torch.manual_seed(0)
    shapes = {"student_shape": student.shape[1:], "teacher_shape": teacher.shape[1:]}
    return MatchedChannels(**shapes, **options)


def matched(student: Tensor, teacher: Tensor, **options: object) -> MatchedChannels:
    loss = build(student, teacher, **options)
    loss.match(pooled(student), pooled(teacher))
    return loss


ORDER = torch.tensor([3, 0, 4, 2, 1, 5])


# Similarity and assignments


def test_the_similarity_is_pearsons_correlation() -> None:
    student, teacher = normal(50, 3), normal(50, 4, seed=1)
    whole = torch.corrcoef(torch.cat([student, teacher], dim=1).T)
    torch.testing.assert_close(channel_correlation(student, teacher), whole[:3, 3:])


def test_scales_and_means_do_not_matter_and_dead_channels_are_like_none() -> None:
    student, teacher = normal(50, 3), normal(50, 4, seed=1)
    similarity = channel_correlation(student, teacher)
    moved = channel_correlation(3 * student + 2, teacher * torch.tensor([1.0, 7.0, 0.2, 5.0]) - 1)
    torch.testing.assert_close(moved, similarity)
    student[:, 1], teacher[:, 2] = 0, 0.3
    dead = channel_correlation(student, teacher)
    assert not dead[1].any()
    assert not dead[:, 2].any()
    assert dead[0, 0] == similarity[0, 0]
    assert not channel_correlation(student[:1], teacher[:1]).any()  # one sample tells nothing


def test_one_to_one_has_the_greatest_sum_of_all_assignments() -> None:
    similarity = normal(4, 5)
    chosen = one_to_one(similarity)
    best = max(itertools.permutations(range(5), 4),
               key=lambda p: sum(similarity[d, e].item() for d, e in enumerate(p)))  # fmt: skip
    assert chosen.tolist() == list(best)


@pytest.mark.parametrize(("num", "others", "most"), [(6, 6, 1), (4, 6, 1), (6, 4, 2), (7, 3, 3)])
def test_one_to_one_uses_each_channel_as_seldom_as_it_can(num: int, others: int, most: int) -> None:
    counts = one_to_one(normal(num, others)).bincount(minlength=others)
    assert counts.sum() == num
    assert counts.max() == most


def test_greedy_takes_the_most_similar_one_however_often() -> None:
    similarity = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.5, 0.1]])
    assert greedy(similarity).tolist() == [1, 1, 0]


# The ridge


def test_the_ridge_solves_its_equations_and_vanishes_for_a_large_one() -> None:
    student, teacher = normal(50, 3), normal(50, 4, seed=1)
    weights = ridge_matrix(student, teacher, 0.5).double()
    r = 0.5 * teacher.double().square().mean()
    gradient = (weights @ teacher.T.double() - student.T.double()) @ teacher.double() / 50
    torch.testing.assert_close(
        gradient + r * weights, torch.zeros(3, 4).double(), atol=1e-6, rtol=0
    )
    assert ridge_matrix(student, teacher, 1e9).abs().max() < 1e-8


@pytest.mark.parametrize("teacher", [torch.zeros(9, 4), normal(9, 2).repeat(1, 2)])
def test_the_ridge_is_finite_for_dead_and_equal_channels(teacher: Tensor) -> None:
    for ridge in (0.0, 1e-3):
        assert ridge_matrix(normal(9, 3), teacher, ridge).isfinite().all()


def test_without_a_ridge_no_assignment_is_nearer_than_the_learned_matrix() -> None:
    student, teacher = normal(50, 6), normal(50, 6, seed=1) + normal(50, 6)[:, ORDER]
    learned = matched(student, teacher, matching="learned", ridge=0.0)(student, teacher).mean()
    for matching in ("one_to_one", "greedy", "identity", "random"):
        assert learned < matched(student, teacher, matching=matching)(student, teacher).mean()


# The loss


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 3, 2)])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("matching", ["one_to_one", "greedy", "learned"])
def test_a_teacher_with_the_students_channels_in_another_order_has_nothing_to_teach(
    matching: str, standardize: bool, shape: tuple[int, ...]
) -> None:
    student = normal(40, *shape)
    teacher = student[:, ORDER]
    loss = build(student, teacher, matching=matching, standardize=standardize, ridge=0.0)
    correlation = loss.match(pooled(student), pooled(teacher))
    assert correlation == pytest.approx(1, abs=1e-5)
    exact = {} if matching != "learned" else {"atol": 1e-9, "rtol": 0}
    torch.testing.assert_close(loss(student, teacher), torch.zeros(40), **exact)
    if matching != "learned":
        assert torch.equal(loss.channels[ORDER], torch.arange(6))
        assert torch.equal(loss(student, teacher), torch.zeros(40))


@pytest.mark.parametrize("matching", ["one_to_one", "greedy", "identity"])
def test_equal_layers_are_matched_to_themselves(matching: str) -> None:
    layer = normal(20, 6)
    assert matched(layer, layer, matching=matching).channels.tolist() == list(range(6))


@pytest.mark.parametrize("matching", ["one_to_one", "greedy"])
def test_the_order_of_the_teachers_channels_changes_no_bit(matching: str) -> None:
    student, teacher = normal(20, 4, 3, 3), normal(20, 6, 3, 3, seed=1)
    values = [
        matched(student, theirs, matching=matching)(student, theirs)
        for theirs in (teacher, teacher[:, ORDER])
    ]
    assert torch.equal(*values)


@pytest.mark.parametrize(("num", "others"), [(6, 6), (4, 6), (6, 4)])
@pytest.mark.parametrize("matching", MATCHINGS)
def test_any_numbers_of_channels_give_the_mean_squared_difference_of_the_target(
    matching: str, num: int, others: int
) -> None:
    student, teacher = normal(20, num, 3), normal(20, others, 3, seed=1)
    loss = matched(student, teacher, matching=matching)
    target = loss.target(teacher)
    assert target.shape == student.shape
    if matching != "learned":
        assert torch.equal(target, teacher[:, loss.channels])
        if matching != "greedy":
            assert loss.channels.bincount(minlength=others).max() <= -(-num // others)
    torch.testing.assert_close(
        loss(student, teacher), (student - target).square().flatten(1).mean(1)
    )


def test_the_controls_look_at_no_sample() -> None:
    student, teacher = normal(20, 6), normal(20, 6)[:, ORDER]
    for matching in ("identity", "random"):
        before = build(student, teacher, matching=matching).channels
        assert torch.equal(matched(student, teacher, matching=matching).channels, before)
    assert not torch.equal(before, torch.arange(6))
    assert torch.equal(before.sort().values, torch.arange(6))


@pytest.mark.parametrize("student_is_larger", [True, False])
def test_the_larger_map_is_pooled(student_is_larger: bool) -> None:
    student, teacher = normal(5, 6, 4, 4), normal(5, 6, 2, 2, seed=1)
    if not student_is_larger:
        student, teacher = teacher, student
    loss = matched(student, teacher)
    mine, theirs = (F.adaptive_avg_pool2d(x, 2) for x in (student, teacher))
    expected = (mine - theirs[:, loss.channels]).square().flatten(1).mean(1)
    torch.testing.assert_close(loss(student, teacher), expected)


def test_a_map_beside_a_vector_is_averaged() -> None:
    student, teacher = normal(5, 6), normal(5, 6, 2, 2, seed=1)
    loss = matched(student, teacher)
    expected = (student - teacher.mean((2, 3))[:, loss.channels]).square().mean(1)
    torch.testing.assert_close(loss(student, teacher), expected)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_standardized_differences_are_in_deviations_of_the_target(matching: str) -> None:
    student, teacher = normal(30, 5), normal(30, 4, seed=1) * torch.tensor([1.0, 9.0, 0.1, 0.0])
    loss = matched(student, teacher, matching=matching, standardize=True)
    target = loss.target(teacher)
    deviation = target.std(0, correction=0)
    deviation[deviation == 0] = 1
    expected = ((student - target) / deviation).square().mean(1)
    torch.testing.assert_close(loss(student, teacher), expected)


def test_a_channel_that_hardly_ever_varies_outweighs_no_other() -> None:
    student, teacher = normal(30, 4), normal(30, 4, seed=1)
    usual = matched(student, teacher, matching="identity", standardize=True)
    quiet = teacher * torch.tensor([1.0, 1.0, 1.0, 1e-7])
    loss = matched(student, quiet, matching="identity", standardize=True)
    assert loss(student, quiet).mean() < 2 * usual(student, teacher).mean()


@pytest.mark.parametrize("matching", MATCHINGS)
def test_gradient_reaches_the_student_and_only_the_student_and_nothing_learns(matching) -> None:
    student, teacher = normal(5, 3, 4, 4).requires_grad_(), normal(5, 7, 2, 2).requires_grad_()
    loss = matched(student.detach(), teacher.detach(), matching=matching)
    loss(student, teacher).sum().backward()
    assert (student.grad.flatten(1).abs().sum(1) > 0).all()
    assert teacher.grad is None
    assert not list(loss.parameters())


@pytest.mark.parametrize("matching", MATCHINGS)
def test_it_is_float32_under_autocast_and_finite_for_one_sample_and_dead_channels(matching) -> None:
    student, teacher = torch.zeros(1, 3, 2), torch.zeros(1, 7, 4)
    loss = matched(student, teacher, matching=matching, standardize=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student.bfloat16(), teacher.bfloat16())
    assert value.dtype == torch.float32
    assert value.isfinite().all()


@pytest.mark.parametrize("matching", MATCHINGS)
def test_the_matching_is_in_the_state(matching: str) -> None:
    student, teacher = normal(20, 4), normal(20, 6, seed=1)
    loss = matched(student, teacher, matching=matching, standardize=True)
    other = build(student, teacher, matching=matching, standardize=True)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(student, teacher), loss(student, teacher))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"matching": "best"}, "matching must be one of one_to_one, .*, got best"),
     ({"ridge": -1.0}, "ridge must be >= 0, got -1.0")],
)  # fmt: skip
def test_bad_options_raise_an_error_with_their_value(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(normal(1, 6), normal(1, 6), **options)


def test_a_series_and_an_image_cannot_be_compared() -> None:
    with pytest.raises(ShapeMismatch, match="got a map of 6 x 4 and a map of 9 x 4 x 4"):
        build(normal(1, 6, 4), normal(1, 9, 4, 4))
