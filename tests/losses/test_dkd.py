import math

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn import functional as F

from kd_lightning.losses.dkd import dkd_soft_loss
from kd_lightning.losses.soft_targets import soft_target_kl

HALVES = [torch.bfloat16, torch.float16]
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]
LABELS = torch.tensor([0, 3, 9, 9, 5, 1, 2, 8])


def normal(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss(student, teacher, labels=LABELS, temperature=4.0, target=1.0, nontarget=8.0):
    return dkd_soft_loss(
        student, teacher, labels, temperature, target_weight=target, nontarget_weight=nontarget
    )


def test_value_by_hand():
    # at T = 2: teacher (1/2, 3/8, 1/8), student (1/4, 3/8, 3/8); the target class is the first
    teacher = 2 * torch.tensor([[4.0, 3.0, 1.0]]).log()
    student = 2 * torch.tensor([[2.0, 3.0, 3.0]]).log()
    target = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    nontarget = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    found = loss(student, teacher, torch.tensor([0]), 2.0, target=0.7, nontarget=3.0)
    torch.testing.assert_close(found, torch.tensor([4 * (0.7 * target + 3 * nontarget)]))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_with_the_weights_of_equation_7_it_is_plain_distillation(
    temperature,
):
    student, teacher = normal(8, 10), normal(8, 10, seed=1)
    parts = (loss(student, teacher, LABELS, temperature, *w) for w in ((1, 0), (0, 1)))
    target, nontarget = parts
    certainty = (teacher / temperature).softmax(1)[torch.arange(8), LABELS]
    torch.testing.assert_close(
        target + (1 - certainty) * nontarget,
        soft_target_kl(student, teacher, temperature),
        rtol=1e-4,
        atol=1e-6 * temperature**2,
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_target_part_is_the_divergence_of_two_bernoulli_distributions(temperature):
    student, teacher = normal(8, 10), normal(8, 10, seed=1)
    coins = [
        Bernoulli((z.double() / temperature).softmax(1)[torch.arange(8), LABELS])
        for z in (teacher, student)
    ]
    found = loss(student, teacher, LABELS, temperature, 1, 0)
    expected = temperature**2 * kl_divergence(*coins)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6 * temperature**2)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_other_part_does_not_depend_on_the_target_class(temperature):
    student, teacher = normal(8, 10), normal(8, 10, seed=1)
    found = loss(student, teacher, LABELS, temperature, 0, 1)
    without = [
        torch.stack([torch.cat([row[:y], row[y + 1 :]]) for row, y in zip(z, LABELS, strict=True)])
        for z in (teacher, student)
    ]
    dice = [Categorical(logits=z.double() / temperature) for z in without]
    expected = temperature**2 * kl_divergence(*dice)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6 * temperature**2)
    student[torch.arange(8), LABELS] += 5
    again = loss(student, teacher, LABELS, temperature, 0, 1)
    torch.testing.assert_close(again, found, rtol=1e-4, atol=1e-6 * temperature**2)


def test_with_two_classes_there_are_no_others():
    student, teacher, labels = normal(8, 2), normal(8, 2, seed=1), torch.arange(8) % 2
    torch.testing.assert_close(
        loss(student, teacher, labels), soft_target_kl(student, teacher, 4.0)
    )
    with pytest.raises(ValueError, match="target_weight must be > 0 for two classes"):
        loss(student, teacher, labels, target=0, nontarget=1)


def test_zero_when_student_equals_teacher():
    logits = normal(8, 10)
    assert torch.equal(loss(logits, logits.clone()), torch.zeros(8))
    shifted = loss(logits + 7, logits)
    torch.testing.assert_close(shifted, torch.zeros(8), atol=2e-4, rtol=0)


def test_gradient_reaches_the_student_and_only_the_student():
    student, teacher = normal(8, 10).requires_grad_(), normal(8, 10, seed=1).requires_grad_()
    loss(student, teacher).sum().backward()
    assert (student.grad.abs().sum(1) > 0).all()
    assert teacher.grad is None


def test_every_argument_changes_the_result():
    student, teacher, other = (normal(8, 10, seed=seed) for seed in range(3))
    base = loss(student, teacher)
    assert base.shape == (8,)
    for changed in (
        loss(other, teacher),
        loss(student, other),
        loss(teacher, student),
        loss(student, teacher, (LABELS + 1) % 10),
        loss(student, teacher, temperature=2.0),
        loss(student, teacher, target=2.0),
        loss(student, teacher, nontarget=2.0),
    ):
        assert not torch.allclose(changed, base)


def test_the_most_probable_class_of_mixed_labels_is_the_target():
    student, teacher = normal(8, 10), normal(8, 10, seed=1)
    mixed = 0.6 * F.one_hot(LABELS, 10) + 0.4 * F.one_hot((LABELS + 3) % 10, 10)
    assert torch.equal(loss(student, teacher, mixed), loss(student, teacher))
    halves = torch.tensor([[0.5, 0.0, 0.5]])
    student, teacher = normal(1, 3), normal(1, 3, seed=1)
    first = loss(student, teacher, torch.tensor([0]))
    assert torch.equal(loss(student, teacher, halves), first)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_finite_at_extreme_logits(dtype, temperature):
    teacher = torch.tensor([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4]], dtype=dtype)
    student = torch.tensor([[-1e4, 1e4, 0.0], [0.0, -1e4, 1e4]], dtype=dtype, requires_grad=True)
    for labels in (torch.tensor([0, 0]), torch.tensor([1, 2])):
        value = loss(student, teacher, labels, temperature)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_computed_in_float32_under_autocast(dtype):
    student, teacher = normal(8, 10).to(dtype), normal(8, 10, seed=1).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        found = loss(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(student.float(), teacher.float()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": -1.0}, "must be >= 0, and one of them > 0, got -1.0 and "),
        ({"nontarget": math.nan}, "must be >= 0, and one of them > 0, got .* and nan"),
        (
            {"target": 0.0, "nontarget": 0.0},
            "target_weight and nontarget_weight .* 0.0 and 0.0",
        ),
        ({"temperature": 0.0}, "temperature must be > 0, got 0"),
    ],
)
def test_invalid_values_raise_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        loss(normal(8, 10), normal(8, 10), **options)


def test_one_class_raises_an_error():
    with pytest.raises(ValueError, match=r"C >= 2 classes, got shape \(8, 1\)"):
        loss(normal(8, 1), normal(8, 1), torch.zeros(8, dtype=torch.long))
