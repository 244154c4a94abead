import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.nn import functional as F

from kd_lightning.losses.soft_targets import soft_target_kl
from kd_lightning.uncertainty import confidence as module
from kd_lightning.uncertainty.confidence import (
    correct_confidence,
    entropy_confidence,
    entropy_weight,
    hard_gate,
    margin_confidence,
    max_probability_confidence,
    mutual_information_confidence,
    predictive_entropy,
    soft_gate,
    uniform_confidence,
)
from kd_lightning.uncertainty.samples import mutual_information

HALVES = [torch.bfloat16, torch.float16]
CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "confidence").glob("*.yaml"))
CONFIDENCES = [
    entropy_confidence,
    entropy_weight,
    uniform_confidence,
    max_probability_confidence,
    margin_confidence,
    correct_confidence,
    mutual_information_confidence,
]
OF_LOGITS = [entropy_confidence, entropy_weight, max_probability_confidence, margin_confidence]


def normal(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(*, batch=64, classes=10, dtype=torch.float32, scale=1.0):
    """logits, labels and samples, as a method passes them."""
    logits = (scale * normal(batch, classes)).to(dtype)
    samples = (scale * normal(5, batch, classes, seed=1)).to(dtype)
    return logits, torch.arange(batch) % classes, samples


def probs(*rows):
    return torch.tensor(rows).log()


def test_values_by_hand():
    logits = probs([0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25])
    torch.testing.assert_close(predictive_entropy(logits), torch.tensor([1.75, 2.0]) * math.log(2))
    for confidence, expected in (
        (entropy_confidence, [0.125, 0.0]),
        (entropy_weight, [0.875, 1.0]),
        (uniform_confidence, [1.0, 1.0]),
        (max_probability_confidence, [0.5, 0.25]),
        (margin_confidence, [0.25, 0.0]),
    ):
        torch.testing.assert_close(
            confidence(logits), torch.tensor(expected), atol=1e-6, rtol=0, msg=confidence.__name__
        )


def test_mutual_information_by_hand():
    # two passes, certain of two different classes of four: one bit of two
    samples = 1e4 * torch.eye(4)[[0, 1]].unsqueeze(1)
    found = mutual_information_confidence(samples[0], samples=samples)
    torch.testing.assert_close(found, torch.tensor([0.5]))
    spread = 1e4 * torch.eye(10).unsqueeze(1)
    assert mutual_information_confidence(spread[0], samples=spread) == 0


def test_entropy_agrees_with_torch():
    logits = normal(64, 10)
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(predictive_entropy(logits), expected)


def test_entropy_has_a_gradient():
    logits = normal(8, 10).requires_grad_()
    (gradient,) = torch.autograd.grad(predictive_entropy(logits).sum(), logits)
    assert (gradient.abs().sum(1) > 0).all()


@pytest.mark.parametrize("num_classes", [2, 10, 100, 1000])
def test_uniform_teacher_has_no_confidence(num_classes):
    logits = torch.full((3, num_classes), 2.5)
    zeros, ones = torch.zeros(3), torch.ones(3)
    for confidence, expected in (
        (entropy_confidence, zeros),
        (margin_confidence, zeros),
        (max_probability_confidence, ones / num_classes),
        (entropy_weight, ones),
    ):
        torch.testing.assert_close(confidence(logits), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_a_teacher_with_logits_of_1e4_is_certain_and_its_distillation_is_plain(num_classes):
    labels = torch.arange(4) % num_classes
    logits, student = 1e4 * F.one_hot(labels, num_classes).float(), normal(4, num_classes)
    plain = soft_target_kl(student, logits, 4.0)
    for confidence in (entropy_confidence, max_probability_confidence, margin_confidence):
        assert torch.equal(confidence(logits), torch.ones(4))
        assert torch.equal(confidence(logits) * plain, plain)
    assert torch.equal(entropy_weight(logits), torch.zeros(4))


def test_a_temperature_inside_the_weight_removes_a_confident_teacher():
    # the reason for an option of its own: 100 classes, target logit 10 above the others
    noise = torch.randn(500, 100, generator=torch.Generator().manual_seed(0))
    logits = noise + 10 * F.one_hot(torch.zeros(500, dtype=torch.long), 100)
    assert entropy_confidence(logits).mean().item() == pytest.approx(0.98, abs=0.02)
    assert entropy_confidence(logits / 4).mean().item() == pytest.approx(0.04, abs=0.02)


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_adding_a_constant_to_the_logits_changes_nothing(confidence):
    logits, labels, samples = inputs()
    found = confidence(logits + 50, labels, samples - 30)
    torch.testing.assert_close(found, confidence(logits, labels, samples), atol=1e-5, rtol=0)


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_permuting_the_classes_changes_nothing(confidence):
    logits, labels, samples = inputs()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    found = confidence(logits[:, order], order.argsort()[labels], samples[..., order])
    torch.testing.assert_close(found, confidence(logits, labels, samples), atol=1e-6, rtol=0)


@pytest.mark.parametrize("confidence", OF_LOGITS)
def test_larger_logits_have_a_higher_confidence(confidence):
    logits = normal(64, 10)
    change = confidence(2 * logits) - confidence(logits)
    assert (change < 0).all() if confidence is entropy_weight else (change > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 3e3])
@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_one_weight_per_sample_finite_between_0_and_1_in_float32(confidence, scale, dtype):
    logits, labels, samples = inputs(dtype=dtype, scale=scale)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        found = confidence(logits, labels, samples)
    assert found.shape == (64,)
    assert found.dtype == torch.float32
    assert ((found >= 0) & (found <= 1)).all()
    assert torch.equal(found, confidence(logits.float(), labels, samples.float()))


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_confidence_has_no_gradient(confidence):
    logits, labels, samples = inputs()
    found = confidence(logits.requires_grad_(), labels, samples.requires_grad_())
    assert not found.requires_grad


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_one_class_raises_an_error(confidence):
    with pytest.raises(ValueError, match=r"C >= 2 classes, got shape \(64, 1\)"):
        confidence(*inputs(classes=1))


def test_opposite_sign_is_one_minus_confidence():
    logits = normal(64, 10)
    assert torch.equal(entropy_confidence(logits), 1 - entropy_weight(logits))


def test_correct_means_that_the_most_probable_class_is_the_label():
    logits = torch.eye(3)
    labels = torch.tensor([0, 2, 2])
    expected = torch.tensor([1.0, 0.0, 1.0])
    assert torch.equal(correct_confidence(logits, labels), expected)
    mixed = 0.6 * F.one_hot(labels, 3) + 0.4 * F.one_hot((labels + 1) % 3, 3)
    assert torch.equal(correct_confidence(logits, mixed), expected)


def test_correct_without_labels_raises_an_error():
    with pytest.raises(ValueError, match="needs labels"):
        correct_confidence(normal(4, 3))


def test_mutual_information_confidence_is_one_minus_its_share():
    logits, labels, samples = inputs()
    expected = 1 - mutual_information(samples) / math.log(10)
    torch.testing.assert_close(mutual_information_confidence(logits, labels, samples), expected)
    assert not torch.allclose(expected, torch.ones(64), atol=0.1)


def test_mutual_information_without_samples_raises_an_error():
    with pytest.raises(ValueError, match="stochastic passes"):
        mutual_information_confidence(normal(4, 3))


def test_soft_gate_keeps_the_weight_and_hard_gate_makes_it_one():
    confidence = torch.tensor([0.0, 0.49, 0.5, 0.9, 1.0])
    assert torch.equal(soft_gate(confidence, 0.5), torch.tensor([0, 0, 0.5, 0.9, 1.0]))
    assert torch.equal(hard_gate(confidence, 0.5), torch.tensor([0.0, 0, 1, 1, 1]))
    assert torch.equal(soft_gate(confidence, 1.0), torch.tensor([0.0, 0, 0, 0, 1]))


def test_threshold_zero_keeps_all():
    confidence = torch.tensor([0.0, 0.3, 1.0])
    assert torch.equal(soft_gate(confidence, 0.0), confidence)
    assert torch.equal(hard_gate(confidence, 0.0), torch.ones(3))


@pytest.mark.parametrize("gate", [soft_gate, hard_gate])
@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_threshold_must_be_in_its_range(gate, threshold):
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got"):
        gate(torch.ones(3), threshold)


def test_every_confidence_has_a_config_and_every_config_builds_one():
    built = {path.stem: instantiate(OmegaConf.load(path)) for path in CONFIGS}
    assert {confidence.func for confidence in built.values()} == set(CONFIDENCES)
    public = {name for name in vars(module) if name.endswith(("_confidence", "_weight"))}
    assert public == {confidence.__name__ for confidence in CONFIDENCES}
    for name, confidence in built.items():
        assert confidence.func.__name__.removesuffix("_confidence") == name
        assert torch.equal(confidence(*inputs()), confidence.func(*inputs()))
