"""Attacks on a net's input: projected gradient descent (PGD), Madry et al., arXiv 1706.06083.

    x_0     = x, or a random point of the ball
    x_{k+1} = clip( x_k + step_size * sign( d objective / d x_k ) )     to the ball around x
    ball    = { u : max |u - x| <= epsilon, lowest <= u <= highest }

The result is the last iterate, not the best one. It depends on nothing but the arguments.
Dimensions: B batch.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from jaxtyping import Float, Num
from torch import Tensor

Objective = Callable[[Tensor], Tensor]  # samples (B, ...) -> what is raised, (B,)


def pgd(
    objective: Objective,
    x: Float[Tensor, "B *shape"],
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    noise: Float[Tensor, "B *shape"] | None = None,
    bounds: tuple[float, float] | None = None,
) -> Float[Tensor, "B *shape"]:
    """Samples near ``x`` with a high objective, detached.

    In fp16 the objective is computed in float32: its gradient can be too small for fp16, and where
    it is 0, a sample is not attacked at all.

    Only the gradient for the samples is computed, so the weights of a net inside ``objective`` keep
    the gradient that they had. It works in ``torch.no_grad``, but not with tensors that were made
    in inference mode.

    Args:
        objective: of each sample, which depends on that sample alone.
        epsilon: largest change of a value, in the units of ``x``.
        step_size: change of a value in one step, in the same units.
        steps: number of gradients.
        noise: in [-1, 1]; the attack starts at ``x + epsilon * noise``. None: at ``x``.
        bounds: smallest and largest value of a sample. None: there are none.
    """
    x = x.detach()
    low, high = x - epsilon, x + epsilon
    if bounds is not None:
        low, high = low.clamp_min(bounds[0]), high.clamp_max(bounds[1])
    attacked = x if noise is None else (x + epsilon * noise).clamp(low, high)
    is_half = torch.get_autocast_dtype(x.device.type) == torch.float16
    autocast = torch.autocast(x.device.type, enabled=False) if is_half else nullcontext()
    for _ in range(steps):
        with torch.enable_grad(), autocast:
            attacked = attacked.detach().requires_grad_()
            (slope,) = torch.autograd.grad(objective(attacked).sum(), attacked)
        attacked = (attacked.detach() + step_size * slope.sign()).clamp(low, high)
    return attacked.detach()


def as_floats(x: Num[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
    """Samples as an attack can change them: images of bytes become floats in [0, 1]."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()
