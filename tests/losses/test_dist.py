import math

import pytest
import torch
from scipy import stats
from torchmetrics.functional import pearson_corrcoef

from kd_lightning.losses.dist import dist_soft_loss, pearson_correlation

HALVES = [torch.bfloat16, torch.float16]
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]


def normal(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss(student, teacher, temperature=4.0, inter=1.0, intra=1.0):
    return dist_soft_loss(
        student, teacher, None, temperature, inter_weight=inter, intra_weight=intra
    )


def test_value_by_hand():
    # two samples of three classes, at T = 2
    teacher = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    student = torch.tensor([[0.3, 0.5, 0.2], [0.4, 0.1, 0.5]])
    rows = []
    for p, q in zip(student.tolist(), teacher.tolist(), strict=True):
        a, b = [x - 1 / 3 for x in p], [x - 1 / 3 for x in q]  # probabilities have this mean
        products = sum(x * y for x, y in zip(a, b, strict=True))
        rows.append(products / math.sqrt(sum(x * x for x in a) * sum(x * x for x in b)))
    columns = (-1, 1, 1)  # of two samples each: up or down together, or not
    expected = torch.tensor([4 * (0.7 * (1 - r) + 3 * (1 - sum(columns) / 3)) for r in rows])
    found = loss(2 * student.log(), 2 * teacher.log(), 2.0, inter=0.7, intra=3.0)
    torch.testing.assert_close(found, expected)


def test_correlation_agrees_with_scipy_and_torchmetrics():
    a, b = normal(6, 10), normal(6, 10, seed=1) + 0.5 * normal(6, 10)
    for dim, (x, y) in enumerate(((a.T, b.T), (a, b))):
        found = pearson_correlation(a, b, dim)
        for r, u, v in zip(found, x, y, strict=True):
            assert r.item() == pytest.approx(stats.pearsonr(u.numpy(), v.numpy())[0], abs=1e-5)
            assert r.item() == pytest.approx(pearson_corrcoef(u, v).item(), abs=1e-5)


def test_correlation_with_itself_is_one_with_the_opposite_minus_one():
    a, ones = normal(6, 10), torch.ones(6)
    torch.testing.assert_close(pearson_correlation(a, 3 * a + 2, 1), ones)
    torch.testing.assert_close(pearson_correlation(a, -a, 1), -ones)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_one_term_is_over_rows_and_one_over_columns(temperature):
    student, teacher = normal(6, 10), normal(6, 10, seed=1)
    p, q = ((z / temperature).softmax(1).double().numpy() for z in (student, teacher))
    rows = [temperature**2 * (1 - stats.pearsonr(u, v)[0]) for u, v in zip(p, q, strict=True)]
    found = loss(student, teacher, temperature, intra=0)
    torch.testing.assert_close(found.double(), torch.tensor(rows).double(), rtol=1e-3, atol=1e-4)
    columns = [1 - stats.pearsonr(u, v)[0] for u, v in zip(p.T, q.T, strict=True)]
    mean = temperature**2 * sum(columns) / 10
    found = loss(student, teacher, temperature, inter=0)
    torch.testing.assert_close(found, torch.full((6,), float(mean)), rtol=1e-3, atol=1e-4)


def test_as_temperature_grows_the_correlations_are_those_of_the_logits():
    student, teacher = normal(6, 10), normal(6, 10, seed=1)
    centred = [z - z.mean(1, keepdim=True) for z in (student, teacher)]
    inter = 1 - pearson_correlation(*centred, dim=1)
    intra = 1 - pearson_correlation(*centred, dim=0).mean()
    found = loss(student, teacher, 200.0) / 200**2
    torch.testing.assert_close(found, inter + intra, atol=0.02, rtol=0)


def test_zero_when_student_equals_teacher():
    logits = normal(6, 10)
    for student in (logits.clone(), logits + 7):
        torch.testing.assert_close(loss(student, logits), torch.zeros(6), atol=1e-4, rtol=0)


def test_gradient_reaches_the_student_and_only_the_student():
    for weights in ({"inter": 0.0}, {"intra": 0.0}):
        student, teacher = normal(6, 10).requires_grad_(), normal(6, 10, seed=1).requires_grad_()
        loss(student, teacher, **weights).mean().backward()
        assert (student.grad.abs().sum(1) > 1e-3).all()
        assert teacher.grad is None


def test_every_argument_changes_the_result():
    student, teacher, other = (normal(6, 10, seed=seed) for seed in range(3))
    base = loss(student, teacher)
    assert base.shape == (6,)
    for changed in (
        loss(other, teacher),
        loss(student, other),
        loss(student, teacher, 2.0),
        loss(student, teacher, inter=2.0),
        loss(student, teacher, intra=2.0),
    ):
        assert not torch.allclose(changed, base)


def test_labels_have_no_effect():
    student, teacher = normal(6, 10), normal(6, 10, seed=1)
    for labels in (torch.arange(6), torch.full((6, 10), 0.1)):
        found = dist_soft_loss(student, teacher, labels, 4.0, inter_weight=1.0, intra_weight=1.0)
        assert torch.equal(found, loss(student, teacher))


@pytest.mark.parametrize("dim", [0, 1])
def test_constants_have_no_correlation_and_no_gradient(dim):
    a, b = normal(6, 10).requires_grad_(), normal(6, 10, seed=1)
    with torch.no_grad():
        a.select(1 - dim, 2).fill_(0.1)
        b.select(1 - dim, 3).fill_(0.1)
    found = pearson_correlation(a, b, dim)
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert found[2] == found[3] == 0
    assert (found != 0).sum() == len(found) - 2
    assert not gradient.select(1 - dim, 2).any()
    assert not gradient.select(1 - dim, 3).any()
    assert gradient.isfinite().all()


def test_for_a_batch_of_one_sample_the_second_term_is_constant():
    student, teacher = normal(1, 10).requires_grad_(), normal(1, 10, seed=1)
    value = loss(student, teacher, 2.0, inter=0.0)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.tolist() == [4.0]
    assert not gradient.any()


def test_uniform_predictions_are_finite():
    student = torch.zeros(6, 10, requires_grad=True)
    value = loss(student, normal(6, 10))
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert torch.equal(value, torch.full((6,), 32.0))  # no correlation of either kind
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_finite_at_extreme_logits(dtype, temperature):
    teacher = torch.tensor([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4], [50.0, 0, -80.0]], dtype=dtype)
    student = torch.tensor([[-1e4, 1e4, 0.0], [0.0, -1e4, 1e4], [0, -60.0, -99.0]], dtype=dtype)
    student.requires_grad_()
    for rows in ([0, 1, 2], [0, 0, 0], [2, 2, 1], [2]):
        value = loss(student[rows], teacher[rows], temperature)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


def test_finite_at_any_scale_of_logits():
    for exponent in range(-6, 5):
        student = (10.0**exponent * normal(6, 10)).requires_grad_()
        value = loss(student, normal(6, 10, seed=1), 1.0)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_computed_in_float32_under_autocast(dtype):
    student, teacher = normal(6, 10).to(dtype), normal(6, 10, seed=1).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        found = loss(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(student.float(), teacher.float()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inter": -1.0}, "must be >= 0, and one of them > 0, got -1.0 and 1.0"),
        ({"intra": math.inf}, "must be >= 0, and one of them > 0, got 1.0 and inf"),
        ({"inter": 0.0, "intra": 0.0}, "inter_weight and intra_weight must be .* got 0.0 and 0.0"),
        ({"temperature": -1.0}, "temperature must be > 0, got -1"),
    ],
)
def test_invalid_values_raise_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        loss(normal(6, 10), normal(6, 10), **options)
