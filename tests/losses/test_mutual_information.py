"""Mutual information: two estimators on scores, critics, and what they say of known Gaussians."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.feature_loss import ShapeMismatch
from kd_lightning.losses.mutual_information import (
    Critic,
    MutualInformation,
    jsd_estimate,
    nce_estimate,
)

ESTIMATES = [jsd_estimate, nce_estimate]
SHAPES = [((6,), (9,)), ((6,), (9, 4)), ((6,), (9, 4, 2)), ((6, 2, 2), (9,)),
          ((6, 4, 4), (9, 2, 2)), ((6, 3), (9, 3))]  # fmt: skip


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(student: tuple[int, ...], teacher: tuple[int, ...], **options: object):
    torch.manual_seed(0)
    return MutualInformation(student_shape=student, teacher_shape=teacher, **options)


# The estimators


def test_jsd_by_hand() -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0], [-2.0, 1.0, 0.0]])

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    first = (math.log(2) - softplus(-2)) - ((softplus(-1) + softplus(0.5)) / 2 - math.log(2))
    assert jsd_estimate(scores)[0].item() == pytest.approx(first)


def test_nce_is_log_n_minus_the_cross_entropy_of_finding_the_partner() -> None:
    scores = normal(5, 5)
    loss = F.cross_entropy(scores, torch.arange(5), reduction="none")
    torch.testing.assert_close(nce_estimate(scores), math.log(5) - loss)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_scores_of_zero_say_nothing(estimate) -> None:
    torch.testing.assert_close(estimate(torch.zeros(4, 4)), torch.zeros(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("estimate", "most"), [(jsd_estimate, math.log(4)),
                                                (nce_estimate, math.log(5))])  # fmt: skip
def test_no_estimate_is_above_its_limit_which_perfect_scores_reach(estimate, most) -> None:
    assert (estimate(10 * normal(5, 5)) < most).all()
    perfect = 1e4 * (2 * torch.eye(5) - 1)
    torch.testing.assert_close(estimate(perfect), torch.full((5,), most))
    assert estimate(-perfect).isfinite().all()


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_one_sample_has_no_negatives_and_an_estimate_of_zero(estimate) -> None:
    scores = torch.full((3, 1, 1), 7.0, requires_grad=True)
    value = estimate(scores)
    (gradient,) = torch.autograd.grad(value.sum(), scores)
    assert torch.equal(value, torch.zeros(3, 1))
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_positives_push_up_and_negatives_down(estimate) -> None:
    scores = normal(4, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(estimate(scores).sum(), scores)
    itself = torch.eye(4, dtype=torch.bool)
    assert (gradient[itself] > 0).all()
    assert (gradient[~itself] < 0).all()


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_each_position_has_an_estimate_of_its_own(estimate) -> None:
    scores = normal(3, 4, 4)
    torch.testing.assert_close(estimate(scores), torch.stack([estimate(one) for one in scores]))


# The loss of two layers


@pytest.mark.parametrize("estimator", ["jsd", "nce"])
@pytest.mark.parametrize(("student", "teacher"), SHAPES)
def test_any_shapes_give_one_value_per_sample_and_a_gradient_to_student_and_critics(
    student: tuple[int, ...], teacher: tuple[int, ...], estimator: str
) -> None:
    loss = build(student, teacher, estimator=estimator, width=8)
    for num in (1, 2, 5):
        x, target = normal(num, *student).requires_grad_(), normal(num, *teacher).requires_grad_()
        loss.zero_grad()
        value = loss(x, target)
        value.sum().backward()
        assert value.shape == (num,)
        assert value.isfinite().all()
        assert x.grad.isfinite().all()
        assert target.grad is None
        moved = [p.grad.abs().sum() > 0 for p in (x, *loss.parameters())]
        assert all(moved) if num > 1 else not any(moved)
        assert num > 1 or torch.equal(value, torch.zeros(1))


def test_a_position_is_scored_by_its_own_embedding() -> None:
    loss = build((6,), (9, 2, 2), width=8)
    student, teacher = normal(5, 6), normal(5, 9, 2, 2, seed=1)
    mine = loss.student_critic(student)[0]
    values = []
    for h, w in ((0, 0), (0, 1), (1, 0), (1, 1)):
        theirs = loss.teacher_critic(teacher[:, :, h, w])[0]
        values.append(-jsd_estimate(theirs @ mine.T / 8**0.5))
    torch.testing.assert_close(loss(student, teacher), torch.stack(values).mean(0))


def test_the_order_of_the_positions_does_not_matter_beside_a_vector() -> None:
    loss = build((6,), (9, 4), width=8)
    student, teacher = normal(5, 6), normal(5, 9, 4, seed=1)
    moved = teacher[:, :, torch.tensor([2, 0, 3, 1])]
    torch.testing.assert_close(loss(student, teacher), loss(student, moved))


@pytest.mark.parametrize("estimator", ["jsd", "nce"])
def test_the_order_of_the_samples_does_not_matter(estimator: str) -> None:
    loss = build((6,), (9,), estimator=estimator)
    student, teacher = normal(5, 6), normal(5, 9, seed=1)
    order = torch.tensor([4, 0, 2, 1, 3])
    torch.testing.assert_close(loss(student, teacher)[order], loss(student[order], teacher[order]))


def test_shuffled_pairs_are_those_of_the_sample_before() -> None:
    student, teacher = normal(5, 6), normal(5, 9, seed=1)
    plain, shuffled = (build((6,), (9,), shuffled=shuffled) for shuffled in (False, True))
    expected = plain(student, teacher[torch.tensor([4, 0, 1, 2, 3])])
    assert torch.equal(shuffled(student, teacher), expected)


def test_critics_that_are_identities_find_equal_layers_and_no_shuffled_ones() -> None:
    student = normal(32, 16)
    true, shuffled = (build((16,), (16,), width=16, shuffled=s) for s in (False, True))
    for loss in (true, shuffled):
        for critic in (loss.student_critic, loss.teacher_critic):
            torch.nn.init.zeros_(critic.out.weight)
    assert true(student, student).mean() < -0.3
    assert shuffled(student, student).mean() > 0.3


def test_the_shortcut_begins_as_a_noisy_identity() -> None:
    torch.manual_seed(0)
    for channels in (3, 8):
        difference = Critic(channels, 5).shortcut.weight - torch.eye(5, channels)
        assert 0 < difference.abs().max() <= 0.01


@pytest.mark.parametrize("estimator", ["jsd", "nce"])
def test_it_is_float32_and_finite_under_autocast(estimator: str) -> None:
    loss = build((6,), (9, 4), estimator=estimator, width=8)
    student, teacher = normal(5, 6), 1e4 * normal(5, 9, 4, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student.bfloat16(), teacher.bfloat16())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student, teacher), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"estimator": "dv"}, "estimator must be jsd or nce, got dv"),
     ({"width": 0}, "width must be >= 1, got 0")],
)  # fmt: skip
def test_bad_options_raise_an_error_with_their_value(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build((6,), (9,), **options)


def test_a_series_and_an_image_cannot_be_compared() -> None:
    with pytest.raises(ShapeMismatch, match="got a map of 6 x 4 and a map of 9 x 4 x 4"):
        build((6, 4), (9, 4, 4))


# Two Gaussians of 2 dimensions, each correlated by r: I = -log(1 - r^2)


@pytest.fixture(scope="module")
def trained() -> dict[tuple[str, float], tuple[MutualInformation, Tensor, Tensor]]:
    return {(name, r): fit(name, r) for name in ("jsd", "nce") for r in (0.0, 0.5, 0.9)}


def pairs(num: int, r: float, seed: int) -> tuple[Tensor, Tensor]:
    x, noise = normal(2, num, 2, seed=seed)
    return x, r * x + (1 - r**2) ** 0.5 * noise


def fit(estimator: str, r: float) -> tuple[MutualInformation, Tensor, Tensor]:
    loss = build((2,), (2,), estimator=estimator, width=32)
    x, y = pairs(4096, r, seed=1)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    for batch in torch.arange(4096).split(64):
        optimizer.zero_grad()
        loss(x[batch], y[batch]).mean().backward()
        optimizer.step()
    return loss, *pairs(1024, r, seed=2)


def value(case: tuple[MutualInformation, Tensor, Tensor]) -> float:
    """The estimate on samples that the critics have not seen."""
    loss, x, y = case
    with torch.no_grad():
        batches = zip(x.split(64), y.split(64), strict=True)
        return -torch.cat([loss(*batch) for batch in batches]).mean().item()


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_nce_is_not_above_the_mutual_information_of_gaussians(trained, r: float) -> None:
    assert value(trained["nce", r]) <= -math.log(1 - r**2) + 0.02


@pytest.mark.parametrize("estimator", ["jsd", "nce"])
def test_trained_estimates_rise_with_the_correlation(trained, estimator: str) -> None:
    none, some, much = (value(trained[estimator, r]) for r in (0.0, 0.5, 0.9))
    assert none + 0.05 < some < much / 2
    assert none < 0.02


@pytest.mark.parametrize("estimator", ["jsd", "nce"])
def test_shuffled_pairs_have_less_information_for_trained_critics(trained, estimator: str) -> None:
    loss, x, y = trained[estimator, 0.9]
    assert value((loss, x, y.roll(1, 0))) < value((loss, x, y)) - 0.5
