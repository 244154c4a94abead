import math

import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.crd import ContrastiveRepresentation, contrastive_loss


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(student, teacher, **options):
    torch.manual_seed(0)
    shapes = {"student_shape": student.shape[1:], "teacher_shape": teacher.shape[1:]}
    return ContrastiveRepresentation(**shapes, **options)


def test_it_is_the_cross_entropy_of_finding_the_same_sample_in_both_directions():
    student, teacher = normal(4, 6), normal(4, 6, seed=1)
    similarity = [[F.cosine_similarity(s, t, dim=0) / 0.5 for t in teacher] for s in student]
    table = torch.stack([torch.stack(row) for row in similarity])
    expected = [
        2 * -table[i, i] + table[i].exp().sum().log() + table[:, i].exp().sum().log()
        for i in range(4)
    ]
    torch.testing.assert_close(contrastive_loss(student, teacher, 0.5), torch.stack(expected))


def test_equal_samples_are_not_told_apart_and_other_samples_are():
    same, apart = torch.ones(4, 4), torch.eye(4)
    torch.testing.assert_close(contrastive_loss(same, same, 0.1), torch.full((4,), 2 * math.log(4)))
    found = contrastive_loss(apart, 3 * apart, 0.1)
    torch.testing.assert_close(found, torch.full((4,), 2 * math.log(1 + 3 * math.exp(-10))))


def test_maps_are_averaged_over_their_positions():
    student, teacher = normal(4, 3, 8, 8), normal(4, 7, 5, seed=1)
    loss = build(student, teacher)
    torch.testing.assert_close(
        loss(student, teacher), loss(student.mean(dim=(2, 3)), teacher.mean(dim=2))
    )


def test_the_gradient_goes_to_the_student_and_both_embeddings_and_not_to_the_teacher():
    student, teacher = normal(5, 3).requires_grad_(), normal(5, 7, seed=1).requires_grad_()
    loss = build(student, teacher)
    loss(student, teacher).sum().backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_every_option_changes_the_loss():
    student, teacher = normal(5, 3), normal(5, 7, seed=1)
    plain = build(student, teacher)(student, teacher)
    for options in ({"temperature": 1.0}, {"embedding_size": 4}):
        assert not torch.allclose(plain, build(student, teacher, **options)(student, teacher))


def test_one_sample_has_no_negative_and_a_loss_of_zero():
    student, teacher = normal(1, 3), normal(1, 7)
    assert build(student, teacher)(student, teacher).item() == 0


def test_zero_and_extreme_features_are_finite_in_half_precision():
    student = torch.stack([torch.zeros(3), torch.full((3,), 1e4), torch.ones(3)]).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = build(student, student)(student, student.detach())
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
        ({"embedding_size": 0}, "embedding_size must be >= 1, got 0"),
    ],
)
def test_bad_values_are_told(options, said):
    with pytest.raises(ValueError, match=said):
        build(normal(1, 3), normal(1, 3), **options)
