"""Diffusion of features: the schedule, the noise, DDIM steps, and guidance by a classifier.

    x_t = sqrt(a_t) h + sqrt(1 - a_t) n,    n ~ N(0, 1),    a_t = prod_{s <= t} (1 - beta_s)

DDPM (arXiv 2006.11239), DDIM with eta = 0 (arXiv 2010.02502), guidance (arXiv 2105.05233). a_t is
named ``alpha_bar``: the share of the variance that is the feature's, near 1 at t = 0 and near 0 at
the last t. Dimensions: B batch, C classes, D features, T times.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

NUM_TIMES = 1000

Features = Float[Tensor, "B D *size"]


def linear_alpha_bar(
    num_times: int = NUM_TIMES, first: float = 1e-4, last: float = 2e-2
) -> Float[Tensor, "T"]:
    """a_t of the schedule whose beta grows linearly from ``first`` to ``last``."""
    beta = torch.linspace(first, last, num_times, dtype=torch.float64)
    return (1 - beta).cumprod(0).float()


def later_times(num_steps: int, num_times: int = NUM_TIMES) -> list[int]:
    """The later half of a grid of 2 * num_steps times: 400, 300, 200, 100, 0 for 5 steps."""
    stride = num_times // (2 * num_steps)
    return [stride * step for step in reversed(range(num_steps))]


def add_noise(clean: Features, noise: Features, alpha_bar: Float[Tensor, "B"]) -> Features:
    """x_t of each sample at its own time."""
    share = alpha_bar.view(-1, *[1] * (clean.ndim - 1))
    return share.sqrt() * clean + (1 - share).sqrt() * noise


def ddim_step(x: Features, noise: Features, alpha_bar: float, next_alpha_bar: float) -> Features:
    """From x_t to an earlier time, by the noise that is thought to be in x_t. With
    ``next_alpha_bar=1`` this is the clean feature.
    """
    clean = (x - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5
    return next_alpha_bar**0.5 * clean + (1 - next_alpha_bar) ** 0.5 * noise


def log_probability_gradient(
    x: Float[Tensor, "B D"], head: nn.Linear, target: Float[Tensor, "B C"]
) -> Float[Tensor, "B D"]:
    """The gradient of ``sum_c target_c log softmax(W x + b)_c`` with respect to x, in float32.

    It is ``(target - softmax(W x + b)) W``, written out: so it needs no graph, and a compiler can
    follow it.

    Args:
        target: distributions over the classes, each with sum 1.
    """
    weight, bias = head.weight.float(), None if head.bias is None else head.bias.float()
    # with autocast the products would be in half precision
    with torch.autocast(x.device.type, enabled=False):
        return (target - F.linear(x.float(), weight, bias).softmax(dim=1)) @ weight


def class_probabilities(
    labels: Int[Tensor, "B"] | Float[Tensor, "B C"], num_classes: int
) -> Float[Tensor, "B C"]:
    """Labels as distributions over the classes; those of mixed samples are that already."""
    if labels.ndim == 2:
        return labels.float()
    # not F.one_hot, which looks at the labels and so waits for the device
    return (labels.unsqueeze(1) == torch.arange(num_classes, device=labels.device)).float()


class FeatureDiffusion(nn.Module):
    """A diffusion model of features. Noise is drawn from the default generators. All but the
    denoiser computes in float32.

    Args:
        denoiser: (x (B, D, *size), times (B,)) -> the noise in x.
        num_steps: DDIM steps of ``sample``.
    """

    alpha_bar: Tensor

    def __init__(self, denoiser: nn.Module, num_steps: int) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("alpha_bar", linear_alpha_bar(), persistent=False)
        self.times = later_times(num_steps)
        # numbers of Python: a step then does not wait for the device
        self.steps = list(pairwise([*self.alpha_bar[self.times].tolist(), 1.0]))

    def loss(self, clean: Features) -> Float[Tensor, "B"]:
        """Squared error of the noise that is found in noisy features, mean over dimensions. 1 is
        what predicting no noise gives. The gradient goes to the denoiser alone.
        """
        clean = clean.detach().float()
        times = torch.randint(len(self.alpha_bar), (len(clean),), device=clean.device)
        noise = torch.randn_like(clean)
        found = self.denoiser(add_noise(clean, noise, self.alpha_bar[times]), times)
        return (found.float() - noise).square().flatten(1).mean(dim=1)

    def start(self, clean: Features) -> Features:
        """Features with the noise of the first of the times, from which ``sample`` starts."""
        clean = clean.float()
        share = self.alpha_bar[self.times[0]].expand(len(clean))
        return add_noise(clean, torch.randn_like(clean), share)

    def sample(self, x: Features, guide: Callable[[Features], Features] | None = None) -> Features:
        """The clean feature, from x as the feature at the first of the times.

        Args:
            guide: x_t -> a gradient along which the sample is to move, scaled; None: no guidance.
        """
        x = x.float()
        for time, (alpha_bar, next_alpha_bar) in zip(self.times, self.steps, strict=True):
            noise = self.denoiser(x, torch.full((len(x),), time, device=x.device)).float()
            if guide is not None:
                noise = noise - (1 - alpha_bar) ** 0.5 * guide(x)
            x = ddim_step(x, noise, alpha_bar, next_alpha_bar)
        return x
