import math

import pytest
import torch
from torch.nn import functional as F

from kd_lightning.losses.cross_entropy import label_cross_entropy

HALVES = [torch.bfloat16, torch.float16]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_value_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]])  # p = (3/4, 1/4)
    loss = label_cross_entropy(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(loss, torch.tensor([math.log(4 / 3), math.log(4)]))


def test_smoothing_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0]])
    loss = label_cross_entropy(logits, torch.tensor([0]), label_smoothing=0.2)
    torch.testing.assert_close(loss, torch.tensor([0.9 * math.log(4 / 3) + 0.1 * math.log(4)]))


def test_zero_when_all_probability_is_on_the_label():
    labels = torch.arange(5)
    assert torch.equal(label_cross_entropy(1e4 * torch.eye(5), labels), torch.zeros(5))


def test_one_hot_distributions_are_class_indices():
    logits, labels = normal(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    for one_hot in (F.one_hot(labels, 5), F.one_hot(labels, 5).double()):
        torch.testing.assert_close(
            label_cross_entropy(logits, one_hot, 0.1), label_cross_entropy(logits, labels, 0.1)
        )


def test_mixed_labels_mix_the_losses():
    logits, first, second = normal(6, 5), torch.arange(6) % 5, torch.arange(6).flip(0) % 5
    mixed = 0.3 * F.one_hot(first, 5) + 0.7 * F.one_hot(second, 5)
    expected = 0.3 * label_cross_entropy(logits, first) + 0.7 * label_cross_entropy(logits, second)
    torch.testing.assert_close(label_cross_entropy(logits, mixed), expected)


def test_least_value_is_the_entropy_of_the_labels():
    probs = normal(4, 5).softmax(1)
    entropy = torch.distributions.Categorical(probs).entropy()
    torch.testing.assert_close(label_cross_entropy(probs.log(), probs), entropy)


def test_gradient_is_p_minus_y_and_goes_to_the_logits_alone():
    logits = normal(4, 5).requires_grad_()
    labels = normal(4, 5, seed=1).softmax(1).requires_grad_()
    label_cross_entropy(logits, labels).sum().backward()
    torch.testing.assert_close(logits.grad, (logits.softmax(1) - labels).detach())
    assert labels.grad is None


def test_every_argument_changes_the_result():
    logits, labels = normal(4, 5), torch.tensor([0, 1, 2, 3])
    base = label_cross_entropy(logits, labels)
    assert base.shape == (4,)
    assert not torch.allclose(base, label_cross_entropy(normal(4, 5, seed=1), labels))
    assert not torch.allclose(base, label_cross_entropy(logits, labels + 1))
    assert not torch.allclose(base, label_cross_entropy(logits, labels, 0.1))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_finite_at_extreme_logits(dtype):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], dtype=dtype, requires_grad=True)
    for labels in (torch.tensor([0, 0]), torch.tensor([[0.5, 0.5, 0.0]] * 2)):
        for smoothing in (0.0, 0.1):
            loss = label_cross_entropy(logits, labels, smoothing)
            (gradient,) = torch.autograd.grad(loss.sum(), logits)
            assert loss.isfinite().all()
            assert gradient.isfinite().all()


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", HALVES)
def test_computed_in_float32_under_autocast_and_without(dtype, autocast):
    logits, labels = normal(4, 5).to(dtype), torch.tensor([0, 1, 2, 3])
    mixed = normal(4, 5, seed=1).softmax(1).to(dtype)
    for target, reference in ((labels, labels), (mixed, mixed.float())):
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            loss = label_cross_entropy(logits, target)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, label_cross_entropy(logits.float(), reference))
