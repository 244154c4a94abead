"""The laws of multi-level logit distillation (MLKD, CVPR 2023)."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kd_lightning.losses.mlkd import mlkd_soft_loss
from kd_lightning.losses.soft_targets import soft_target_kl

PAPER = (0.5, 0.75, 1.0, 1.25, 1.5)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss(student: Tensor, teacher: Tensor, temperature: float = 4.0, **options: Any) -> Tensor:
    settings = {"factors": PAPER, "batch_weight": 1.0, "class_weight": 1.0} | options
    return mlkd_soft_loss(student, teacher, None, temperature, **settings)


def test_value_by_hand() -> None:
    # at t = 2: the student (1/2, 1/2) for both samples, the teacher (1, 0) and (0, 1)
    student, teacher = torch.zeros(2, 2), torch.tensor([[1e4, 0.0], [0.0, 1e4]])
    instance = 4 * math.log(2)
    batch = (1 - 0.5) ** 2 + (0 - 0.5) ** 2  # a row of the products of samples
    classes = 2 * batch / 2  # both rows of the products of classes
    found = loss(student, teacher, factors=[0.5], batch_weight=3.0, class_weight=5.0)
    torch.testing.assert_close(found, torch.full((2,), instance + 3 * batch + 5 * classes))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_mean_is_the_sum_of_the_papers_terms_over_its_temperatures(temperature: float) -> None:
    student, teacher = normal(6, 10), normal(6, 10, seed=1)
    expected = torch.zeros((), dtype=torch.float64)
    for factor in PAPER:
        t = factor * temperature
        p, q = ((z.double() / t).softmax(1) for z in (student, teacher))
        expected += t**2 * (q * (q / p).log()).sum() / 6
        expected += 0.7 * torch.linalg.matrix_norm(p @ p.T - q @ q.T) ** 2 / 6
        expected += 0.3 * torch.linalg.matrix_norm(p.T @ p - q.T @ q) ** 2 / 10
    found = loss(student, teacher, temperature, batch_weight=0.7, class_weight=0.3)
    torch.testing.assert_close(found.mean().double(), expected, rtol=1e-5, atol=1e-5)


def test_without_pairs_it_is_plain_distillation_at_several_temperatures() -> None:
    student, teacher = normal(6, 10), normal(6, 10, seed=1)
    found = loss(student, teacher, batch_weight=0.0, class_weight=0.0)
    plain = sum(soft_target_kl(student, teacher, t) for t in (2.0, 3.0, 4.0, 5.0, 6.0))
    torch.testing.assert_close(found, plain)


def test_zero_when_student_equals_teacher() -> None:
    logits = normal(6, 10)
    for student in (logits.clone(), logits + 7):
        torch.testing.assert_close(loss(student, logits), torch.zeros(6), atol=1e-4, rtol=0)


def test_every_term_teaches_the_student_and_only_the_student() -> None:
    gradients = []
    for weights in ({"class_weight": 0.0}, {"batch_weight": 0.0}, {}):
        student, teacher = normal(6, 10).requires_grad_(), normal(6, 10, seed=1).requires_grad_()
        loss(student, teacher, **weights).mean().backward()
        gradients.append(student.grad)
        assert teacher.grad is None
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients)
    assert not torch.allclose(gradients[0], gradients[2], rtol=1e-3)
    assert not torch.allclose(gradients[1], gradients[2], rtol=1e-3)


def test_every_argument_changes_the_result() -> None:
    student, teacher, other = (normal(6, 10, seed=seed) for seed in range(3))
    base = loss(student, teacher)
    for changed in (
        loss(other, teacher),
        loss(student, other),
        loss(student, teacher, 2.0),
        loss(student, teacher, factors=[1.0]),
        loss(student, teacher, batch_weight=2.0),
        loss(student, teacher, class_weight=2.0),
    ):
        assert changed.shape == (6,)
        assert not torch.allclose(changed, base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_extreme_logits_and_computed_in_float32(dtype: torch.dtype) -> None:
    teacher = torch.tensor([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4]], dtype=dtype)
    student = torch.tensor([[-1e4, 1e4, 0.0], [0.0, -1e4, 1e4]], dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(student, teacher)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert found.isfinite().all()
    assert gradient.isfinite().all()
    assert torch.equal(found, loss(student.float(), teacher.float()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_weight": -1.0}, "batch_weight and class_weight must be >= 0, got -1.0 and 1.0"),
        ({"class_weight": math.inf}, "must be >= 0, got 1.0 and inf"),
        ({"factors": []}, r"factors must be numbers > 0, one or more, got \[\]"),
        ({"factors": [1.0, 0.0]}, r"got \[1.0, 0.0\]"),
        ({"temperature": -1.0}, "temperature must be > 0, got"),
    ],
)
def test_invalid_values_raise_an_error(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(normal(6, 10), normal(6, 10), **options)
