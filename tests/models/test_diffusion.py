"""Diffusion of features: the schedule, noise and its removal, and the guidance of a classifier."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.models.diffusion import (
    FeatureDiffusion,
    add_noise,
    class_probabilities,
    ddim_step,
    later_times,
    linear_alpha_bar,
    log_probability_gradient,
)

ALPHA_BAR = linear_alpha_bar()


def features(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_the_schedule_falls_from_near_1_to_near_0() -> None:
    assert len(ALPHA_BAR) == 1000
    torch.testing.assert_close(ALPHA_BAR[0].item(), 1 - 1e-4, atol=1e-7, rtol=0)
    assert ALPHA_BAR[-1] < 1e-4
    assert (ALPHA_BAR.diff() < 0).all()
    product = (1 - 1e-4) * (1 - 1e-4 - (2e-2 - 1e-4) / 999)
    torch.testing.assert_close(ALPHA_BAR[1].item(), product, atol=1e-7, rtol=0)


def test_five_steps_take_the_later_half_of_ten() -> None:
    assert later_times(5) == [400, 300, 200, 100, 0]
    assert later_times(1) == [0]
    assert later_times(500)[:2] == [499, 498]


@pytest.mark.parametrize("size", [(4, 6), (4, 6, 3), (4, 6, 3, 2)])
def test_a_step_with_the_exact_noise_gives_the_feature_back(size: tuple[int, ...]) -> None:
    clean, noise = features(*size), features(*size, seed=1)
    times = torch.tensor([0, 100, 400, 700])
    noisy = add_noise(clean, noise, ALPHA_BAR[times])
    for row, time in enumerate(times):
        back = ddim_step(noisy[row], noise[row], ALPHA_BAR[time].item(), 1.0)
        torch.testing.assert_close(back, clean[row], rtol=1e-3, atol=1e-4)


def test_a_step_to_an_earlier_time_is_the_noisy_feature_of_that_time() -> None:
    clean, noise = features(2, 6), features(2, 6, seed=1)
    late, early = (add_noise(clean, noise, ALPHA_BAR[torch.tensor([t, t])]) for t in (400, 300))
    found = ddim_step(late, noise, ALPHA_BAR[400].item(), ALPHA_BAR[300].item())
    torch.testing.assert_close(found, early, rtol=1e-4, atol=1e-5)


class Knowing(nn.Module):
    """A denoiser that knows the clean feature, and so the noise."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.clean, self.times = clean, []

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        self.times.append(times)
        share = ALPHA_BAR[times].unsqueeze(1)
        return (x - share.sqrt() * self.clean) / (1 - share).sqrt()


def test_sampling_with_a_perfect_denoiser_ends_at_the_clean_feature() -> None:
    clean = features(3, 6)
    diffusion = FeatureDiffusion(Knowing(clean), num_steps=5)
    torch.testing.assert_close(diffusion.sample(features(3, 6, seed=1)), clean, atol=1e-4, rtol=0)
    assert [times.tolist() for times in diffusion.denoiser.times] == [
        [time] * 3 for time in (400, 300, 200, 100, 0)
    ]


def test_the_loss_is_zero_for_a_perfect_denoiser_and_one_for_no_prediction() -> None:
    clean = features(512, 6)
    assert FeatureDiffusion(Knowing(clean), 5).loss(clean).max() < 1e-3

    class Zero(nn.Module):
        def forward(self, x: Tensor, times: Tensor) -> Tensor:
            return torch.zeros_like(x)

    assert FeatureDiffusion(Zero(), 5).loss(clean).mean().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("bias", [True, False])
def test_the_guidance_is_the_gradient_of_the_log_probability(bias: bool) -> None:
    torch.manual_seed(0)
    head, x = nn.Linear(6, 4, bias), features(5, 6).requires_grad_()
    for target in (F.one_hot(torch.arange(5) % 4, 4).float(), features(5, 4).softmax(1)):
        logits = F.linear(x, head.weight, head.bias)
        (expected,) = torch.autograd.grad((target * logits.log_softmax(1)).sum(), x)
        found = log_probability_gradient(x.detach(), head, target)
        torch.testing.assert_close(found, expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # in float32 all the same
            assert torch.equal(log_probability_gradient(x.detach(), head, target), found)


def test_guidance_by_nothing_has_equal_bits() -> None:
    diffusion = FeatureDiffusion(Knowing(features(3, 6)), num_steps=5)
    x = features(3, 6, seed=1)
    assert torch.equal(diffusion.sample(x), diffusion.sample(x, torch.zeros_like))


def test_guidance_raises_the_probability_of_its_class() -> None:
    torch.manual_seed(0)
    head, target = nn.Linear(6, 4), torch.eye(4)[torch.arange(64) % 4]
    diffusion = FeatureDiffusion(nn.Module(), num_steps=5)
    diffusion.denoiser.forward = lambda x, times: 0.5 * x

    def probability(scale: float) -> float:
        def guide(x: Tensor) -> Tensor:
            return scale * log_probability_gradient(x, head, target)

        found = diffusion.sample(features(64, 6), guide)
        return (target * head(found).log_softmax(1)).sum(1).mean().item()

    assert probability(-1) < probability(0) < probability(1) < probability(4)


def test_labels_become_distributions_and_distributions_stay() -> None:
    assert torch.equal(class_probabilities(torch.tensor([2, 0]), 3), torch.eye(3)[[2, 0]])
    mixed = features(2, 3).softmax(1)
    assert torch.equal(class_probabilities(mixed, 3), mixed)


def test_sampling_starts_from_the_noise_of_its_first_time() -> None:
    diffusion = FeatureDiffusion(nn.Identity(), num_steps=5)
    start = diffusion.start(torch.full((4000, 2), 3.0))
    assert start.mean().item() == pytest.approx(3 * ALPHA_BAR[400].sqrt().item(), abs=0.05)
    assert start.var().item() == pytest.approx(1 - ALPHA_BAR[400].item(), abs=0.05)
