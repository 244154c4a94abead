import math

import pytest
import torch

from kd_lightning.uncertainty.samples import disagreement, mutual_information

HALVES = [torch.bfloat16, torch.float16]
MEASURES = [mutual_information, disagreement]


def normal(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_values_by_hand():
    classes = torch.tensor([[0, 0], [0, 0], [0, 1], [0, 2]])  # four passes, two inputs
    samples = 1e4 * torch.nn.functional.one_hot(classes, 4).float()
    torch.testing.assert_close(mutual_information(samples), torch.tensor([0, 1.5 * math.log(2)]))
    assert torch.equal(disagreement(samples), torch.tensor([0.0, 0.5]))


def test_information_is_entropy_of_the_mean_minus_mean_of_the_entropies():
    samples = normal(8, 64, 10)
    each = torch.distributions.Categorical(logits=samples)
    mean = torch.distributions.Categorical(probs=each.probs.mean(0))
    expected = mean.entropy() - each.entropy().mean(0)
    torch.testing.assert_close(mutual_information(samples), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_zero_when_all_passes_are_equal(measure):
    logits = normal(64, 10)
    same = measure(logits.expand(7, -1, -1))
    torch.testing.assert_close(same, torch.zeros(64), atol=1e-6, rtol=0)
    assert (same >= 0).all()
    torch.testing.assert_close(measure(logits[None]), torch.zeros(64), atol=1e-6, rtol=0)


def test_equal_uniform_passes_have_no_information():
    uniform = 7 + torch.zeros(5, 3, 10)
    torch.testing.assert_close(mutual_information(uniform), torch.zeros(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("num_samples", "num_classes"), [(2, 10), (10, 10), (30, 10)])
def test_information_is_between_zero_and_the_log_of_classes_and_passes(num_samples, num_classes):
    for scale in (1e-3, 1.0, 1e3):
        found = mutual_information(scale * normal(num_samples, 64, num_classes))
        assert (found >= 0).all()
        assert (found <= math.log(min(num_samples, num_classes)) + 1e-5).all()
    spread = 1e4 * torch.eye(num_classes)[torch.arange(num_samples) % num_classes][:, None]
    most = torch.tensor([math.log(min(num_samples, num_classes))])
    torch.testing.assert_close(mutual_information(spread), most)


def test_disagreement_is_with_the_mean_of_the_probabilities():
    # first input: two passes prefer class 1, one is certain of class 0; the mean predicts class 0
    # second input: the mean predicts class 1, although the mean of the logits predicts class 0
    first = [[0.4, 0.6], [0.4, 0.6], [0.999, 0.001]]
    second = [[0.1, 0.9], [0.1, 0.9], [1.0, 1e-9]]
    samples = torch.tensor([first, second]).log().transpose(0, 1)
    torch.testing.assert_close(disagreement(samples), torch.tensor([2 / 3, 1 / 3]))


@pytest.mark.parametrize("measure", MEASURES)
def test_permuting_the_passes_changes_nothing_and_other_passes_do(measure):
    samples = normal(8, 64, 10)
    found = measure(samples)
    torch.testing.assert_close(measure(samples.flip(0)), found)
    assert not torch.allclose(measure(normal(8, 64, 10, seed=1)), found)


def test_information_has_a_gradient_in_every_pass():
    samples = normal(8, 4, 10).requires_grad_()
    (gradient,) = torch.autograd.grad(mutual_information(samples).sum(), samples)
    assert (gradient.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("measure", MEASURES)
def test_one_value_per_sample_finite_at_extreme_logits_in_float32(measure, dtype):
    samples = (1e4 * normal(8, 64, 10).sign()).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        found = measure(samples)
    assert found.shape == (64,)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert torch.equal(found, measure(samples.float()))
