import math

import pytest
import torch
from timm.task import LogitDistillationTask
from torch import nn
from torch.nn import functional as F

from kd_lightning.losses.soft_targets import (
    joint_soft_kl,
    kl_soft_loss,
    mean_log_probs,
    reverse_kl_soft_loss,
    soft_log_probs,
    soft_target_kl,
    soft_target_kl_to,
)

HALVES = [torch.bfloat16, torch.float16]
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]


def normal(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_value_by_hand():
    teacher = torch.tensor([[2 * math.log(3.0), 0.0]])  # at T = 2: (3/4, 1/4)
    student = torch.tensor([[0.0, 0.0]])  # (1/2, 1/2)
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    torch.testing.assert_close(soft_target_kl(student, teacher, 2.0), torch.tensor([expected]))


def test_zero_when_student_equals_teacher():
    logits = normal(8, 10)
    assert torch.equal(soft_target_kl(logits, logits.clone(), 4.0), torch.zeros(8))
    shifted = soft_target_kl(logits + 7, logits, 4.0)
    torch.testing.assert_close(shifted, torch.zeros(8), atol=2e-5, rtol=0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_is_T_times_the_difference_and_goes_to_the_student_alone(temperature):
    student, teacher = normal(8, 10).requires_grad_(), normal(8, 10, seed=1).requires_grad_()
    soft_target_kl(student, teacher, temperature).sum().backward()
    difference = (student / temperature).softmax(1) - (teacher / temperature).softmax(1)
    torch.testing.assert_close(student.grad, (temperature * difference).detach())
    assert teacher.grad is None


def test_gradient_reaches_no_peer():
    student = normal(8, 10).requires_grad_()
    peers = [normal(8, 10, seed=seed).requires_grad_() for seed in (1, 2)]
    soft_target_kl_to(student, mean_log_probs(peers, 4.0), 4.0).sum().backward()
    assert student.grad.abs().sum() > 0
    assert [peer.grad for peer in peers] == [None, None]


def test_every_argument_changes_the_result():
    student, teacher, other = (normal(8, 10, seed=seed) for seed in range(3))
    base = soft_target_kl(student, teacher, 4.0)
    assert base.shape == (8,)
    assert not torch.allclose(base, soft_target_kl(other, teacher, 4.0))
    assert not torch.allclose(base, soft_target_kl(student, other, 4.0))
    assert not torch.allclose(base, soft_target_kl(student, teacher, 2.0))
    assert not torch.allclose(base, soft_target_kl(teacher, student, 4.0))
    target = soft_log_probs(teacher, 4.0)
    assert not torch.allclose(base, soft_target_kl_to(other, target, 4.0))
    assert not torch.allclose(base, soft_target_kl_to(student, soft_log_probs(other, 4.0), 4.0))
    assert not torch.allclose(base, soft_target_kl_to(student, target, 2.0))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_finite_at_extreme_logits(dtype, temperature):
    teacher = torch.tensor([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4]], dtype=dtype)
    student = torch.tensor([[-1e4, 1e4, 0.0], [0.0, -1e4, 1e4]], dtype=dtype, requires_grad=True)
    mean = mean_log_probs([teacher, teacher.flip(1)], temperature)
    for loss in (
        soft_target_kl(student, teacher, temperature),
        soft_target_kl_to(student, mean, temperature),
    ):
        (gradient,) = torch.autograd.grad(loss.sum(), student)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_computed_in_float32_under_autocast(dtype):
    student, teacher, peer = (normal(8, 10, seed=seed).to(dtype) for seed in range(3))

    def losses(student, teacher, peer):
        mean = mean_log_probs([teacher, peer], 4.0)
        return soft_target_kl(student, teacher, 4.0), mean, soft_target_kl_to(student, mean, 4.0)

    with torch.autocast("cpu", dtype=dtype):
        found = losses(student, teacher, peer)
    expected = losses(student.float(), teacher.float(), peer.float())
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_agrees_with_torch_on_probabilities_in_float64(temperature):
    student, teacher = normal(8, 10), normal(8, 10, seed=1)
    target = (teacher.double() / temperature).softmax(1)
    log_student = (student.double() / temperature).log_softmax(1)
    batchmean = F.kl_div(log_student, target, reduction="batchmean") * temperature**2
    found = soft_target_kl(student, teacher, temperature).mean()
    torch.testing.assert_close(found.double(), batchmean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_is_cross_entropy_minus_the_entropy_of_the_target(temperature):
    student, teacher = normal(8, 10), normal(8, 10, seed=1)
    target = torch.distributions.Categorical(logits=teacher / temperature)
    cross = F.cross_entropy(student / temperature, target.probs, reduction="none")
    expected = temperature**2 * (cross - target.entropy())
    found = soft_target_kl(student, teacher, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * temperature**2)


def test_a_certain_teacher_is_equal_to_a_label():
    student, labels = normal(8, 10), torch.arange(8)
    teacher = 1e4 * F.one_hot(labels, 10).float()
    expected = F.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(soft_target_kl(student, teacher, 1.0), expected)


def test_a_uniform_teacher_gives_the_formula_for_a_uniform_target():
    student = normal(8, 10)
    expected = -math.log(10) - student.log_softmax(1).mean(1)
    torch.testing.assert_close(soft_target_kl(student, torch.zeros(8, 10), 1.0), expected)


def test_tends_to_half_the_mean_square_of_centred_logits_as_temperature_grows():
    student, teacher = normal(8, 10), normal(8, 10, seed=1)
    difference = student - teacher
    limit = (difference - difference.mean(1, keepdim=True)).square().mean(1) / 2
    distances = []
    for temperature in (4.0, 20.0, 100.0):
        loss = soft_target_kl(student, teacher, temperature)
        distances.append(((loss - limit).abs() / limit).max().item())
    assert distances[0] > 3 * distances[1] > 9 * distances[2]
    assert distances[2] < 0.04


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_mean_is_of_the_probabilities(temperature):
    nets = [normal(8, 10, seed=seed) for seed in range(3)]
    mean = torch.stack([(z / temperature).softmax(1) for z in nets]).mean(0)
    torch.testing.assert_close(mean_log_probs(nets, temperature).exp(), mean)
    swapped = mean_log_probs(nets[::-1], temperature)
    torch.testing.assert_close(swapped, mean_log_probs(nets, temperature))


def test_mean_of_one_peer_is_that_peer_bit_for_bit():
    student, peer = normal(8, 10), normal(8, 10, seed=1)
    alone = soft_target_kl_to(student, mean_log_probs([peer], 4.0), 4.0)
    assert torch.equal(alone, soft_target_kl(student, peer, 4.0))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(temperature):
    z = normal(2, 3)
    for call in (
        lambda: soft_target_kl(z, z, temperature),
        lambda: soft_target_kl_to(z, z, temperature),
        lambda: mean_log_probs([z], temperature),
    ):
        with pytest.raises(ValueError, match="temperature must be > 0, got"):
            call()


def test_the_mean_of_no_nets_raises_an_error():
    with pytest.raises(ValueError, match="one net or more"):
        mean_log_probs([], 1.0)


def test_as_a_soft_loss_it_is_the_same_for_all_labels():
    student, teacher = normal(8, 10), normal(8, 10, seed=1)
    for labels in (None, torch.arange(8), torch.full((8, 10), 0.1)):
        found = kl_soft_loss(student, teacher, labels, 4.0)
        assert torch.equal(found, soft_target_kl(student, teacher, 4.0))


class FixedLogits(nn.Module):
    """A net as timm needs it, whose logits do not depend on the input."""

    num_classes = 10
    in_chans = 3

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}

    def forward(self, x):
        return self.logits


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_agrees_with_timm(temperature):
    student, teacher = FixedLogits(normal(8, 10)), FixedLogits(normal(8, 10, seed=1))
    labels = torch.arange(8)
    task = LogitDistillationTask(
        student,
        teacher,
        criterion=nn.CrossEntropyLoss(),
        temperature=temperature,
        task_loss_weight=0.1,
        distill_loss_weight=0.9,
        verbose=False,
    )
    theirs = task(torch.zeros(8, 3, 2, 2), labels)["loss"]
    hard = F.cross_entropy(student.logits, labels)
    ours = 0.1 * hard + 0.9 * soft_target_kl(student.logits, teacher.logits, temperature).mean()
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, student.logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_the_reverse_divergence_is_its_formula_with_a_gradient_for_the_student_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    teacher.requires_grad_()
    p, q = (student / 2).softmax(1), (teacher / 2).softmax(1)
    found = reverse_kl_soft_loss(student, teacher, None, 2.0)
    expected = 4 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(found, expected.float())
    (gradient,) = torch.autograd.grad(expected.sum(), student)
    found.sum().backward()
    torch.testing.assert_close(student.grad, gradient, atol=1e-5, rtol=1e-5)
    assert teacher.grad is None
    assert reverse_kl_soft_loss(teacher, teacher, None, 2.0).abs().max() == 0
    extreme = reverse_kl_soft_loss(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]]), None, 1)
    assert extreme.isfinite().all()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_with_a_target_that_learns_it_has_the_same_value_and_gradients_to_both(
    temperature: float,
) -> None:
    student = normal(8, 10).double().requires_grad_()
    target = normal(8, 10, seed=1).double().requires_grad_()
    p, q = ((z / temperature).softmax(1) for z in (target, student))
    expected = temperature**2 * (p * (p / q).log()).sum(1)
    loss = joint_soft_kl(student, target, temperature)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, soft_target_kl(student, target, temperature))
    for z in (student, target):
        ours, theirs = (
            torch.autograd.grad(one.sum(), z, retain_graph=True)[0] for one in (loss, expected)
        )
        assert (ours.abs().sum(1) > 0).all()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_with_a_target_that_learns_it_is_zero_at_equality_and_finite_at_extreme_logits() -> None:
    logits = normal(8, 10).requires_grad_()
    loss = joint_soft_kl(logits, logits.detach().clone(), 4.0)
    assert torch.equal(loss, torch.zeros(8))
    student, target = torch.tensor([[[1e4, 0.0, -1e4]], [[-1e4, 0.0, 1e4]]]).requires_grad_()
    loss = joint_soft_kl(student, target, 1.0)
    (gradient,) = torch.autograd.grad(loss.sum(), target)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
