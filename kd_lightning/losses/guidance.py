"""A student chooses among K samples of its teacher's features, and learns from its choice.

Student-guided distillation, arXiv 2504.14307, in its steps 4 to 6, for one input::

    a_k    = softmax_k( <f_S, f_T,k> / h )          attention_weights
    a_k    = 0 below the e-th percentile of a       filter_weights
    target = sum_k a_k f_T,k                        guided_target

``attention_guidance`` is the first two; the loss (step 7) is ``features.feature_mse``. Its controls
take its place: ``mean_guidance`` and ``nearest_guidance``. (A random pass needs none: it is K = 1.)
Dimensions: B batch, D features, K samples (teacher passes with dropout on).

Where the gradient goes: through the weights into the student's features, never into the samples.
Detach the student's features first, and the choice itself does not learn.

Computed in float32 whatever comes in. Products are written element by element because autocast
would take a matrix product back to half precision, and because equal samples then get equal bits.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kd_lightning.losses.feature_mse import unit_features

Similarity = Callable[[Float[Tensor, "B D"], Float[Tensor, "K B D"]], Float[Tensor, "B K"]]


class Guidance(NamedTuple):
    """What the student makes of each sample.

    Attributes:
        weights: a_k of the target.
        attention: the weights before any was dropped; each row sums to 1.
    """

    weights: Float[Tensor, "B K"]
    attention: Float[Tensor, "B K"]


def dot_similarity(
    student_features: Float[Tensor, "B D"], samples: Float[Tensor, "K B D"]
) -> Float[Tensor, "B K"]:
    """``<f_S, f_T,k>``, the paper's. A long sample can beat the nearest one."""
    return (student_features.float() * samples.float()).sum(dim=-1).T


def cosine_similarity(
    student_features: Float[Tensor, "B D"], samples: Float[Tensor, "K B D"]
) -> Float[Tensor, "B K"]:
    """``cos(f_S, f_T,k)``, in [-1, 1] whatever the scale of the features; wants h well below 1."""
    return dot_similarity(unit_features(student_features), unit_features(samples))


def attention_weights(
    student_features: Float[Tensor, "B D"],
    samples: Float[Tensor, "K B D"],
    *,
    bandwidth: float | Literal["auto"],
    similarity: Similarity,
) -> Float[Tensor, "B K"]:
    """``a = softmax_k(similarity(f_S, f_T,k) / h)``: step 4. Each row sums to 1.

    Args:
        bandwidth: h, in units of the similarity; "auto" is sqrt(D), which suits ``dot_similarity``.
            h -> infinity is the mean of the samples, h -> 0 the most similar one.
        similarity: ``dot_similarity`` (paper) or ``cosine_similarity``.

    Raises:
        ValueError: the bandwidth is not > 0.
    """
    if bandwidth == "auto":
        bandwidth = math.sqrt(student_features.shape[1])
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be > 0 or auto, got {bandwidth}")
    return torch.softmax(similarity(student_features, samples.detach()) / bandwidth, dim=1)


def filter_weights(
    weights: Float[Tensor, "B K"], *, percentile: float, renormalize: bool
) -> Float[Tensor, "B K"]:
    """Keeps the weights at or above the percentile of their row, zeroes the rest: step 5.

    The percentile is the linear quantile of the row's K weights. What is kept is all from the
    first order statistic at or above it, and that is how it is found here: free of the rounding of
    an interpolation. So the largest always stays, and ties stay or go together. At the 90th
    percentile K = 5 or 10 keeps 1, 20 keeps 2, 30 keeps 3, 50 keeps 5.

    Args:
        percentile: e, in [0, 100]; 0 keeps all.
        renormalize: divide by the sum of what is kept, so a row sums to 1 again (released code).
            False leaves it (paper's text), and the target shrinks by the weight that was dropped.

    Raises:
        ValueError: the percentile is not in [0, 100].
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile must be in [0, 100], got {percentile}")
    first_kept = math.ceil(percentile * (weights.shape[1] - 1) / 100)
    return _keep_from(weights, first_kept, renormalize)


def keep_top(
    weights: Float[Tensor, "B K"], *, top_k: int, renormalize: bool
) -> Float[Tensor, "B K"]:
    """Keeps the ``top_k`` largest weights of each row, all if K is smaller; zeroes the rest.

    The fixed number that the paper compares its percentile with. Ties with the last that is kept
    are kept too, so that the order of the samples does not matter.

    Raises:
        ValueError: top_k is not >= 1.
    """
    if top_k < 1:
        raise ValueError(f"top_k must be >= 1, got {top_k}")
    return _keep_from(weights, max(0, weights.shape[1] - top_k), renormalize)


def _keep_from(weights: Tensor, first_kept: int, renormalize: bool) -> Tensor:
    threshold = weights.detach().sort(dim=1).values[:, first_kept : first_kept + 1]
    kept = weights.masked_fill(weights < threshold, 0)
    return kept / kept.sum(dim=1, keepdim=True) if renormalize else kept


def attention_guidance(
    student_features: Float[Tensor, "B D"],
    samples: Float[Tensor, "K B D"],
    *,
    bandwidth: float | Literal["auto"],
    percentile: float | None,
    top_k: int | None,
    renormalize: bool,
    similarity: Similarity,
) -> Guidance:
    """The student chooses: ``attention_weights``, of which few are kept.

    Weight 1 when K = 1; equal for equal samples, which are all kept. The released code has h = 5
    (for 2250 features after a LayerNorm), the 90th percentile of K = 30, renormalised.

    Args:
        percentile: as ``filter_weights``, where ``top_k`` is None.
        top_k: as ``keep_top``, where ``percentile`` is None.

    Raises:
        ValueError: a value that cannot be, or not exactly one of percentile and top_k.
    """
    if (percentile is None) == (top_k is None):
        raise ValueError(
            f"percentile or top_k must be null, and not both: got {percentile} and {top_k}"
        )
    attention = attention_weights(
        student_features, samples, bandwidth=bandwidth, similarity=similarity
    )
    if top_k is not None:
        return Guidance(keep_top(attention, top_k=top_k, renormalize=renormalize), attention)
    kept = filter_weights(attention, percentile=percentile, renormalize=renormalize)
    return Guidance(kept, attention)


def mean_guidance(
    student_features: Float[Tensor, "B D"], samples: Float[Tensor, "K B D"]
) -> Guidance:
    """``a_k = 1 / K``: no choice, the target is the mean of the samples. A control."""
    weights = samples.new_full((samples.shape[1], len(samples)), 1 / len(samples)).float()
    return Guidance(weights, weights)


def nearest_guidance(
    student_features: Float[Tensor, "B D"], samples: Float[Tensor, "K B D"]
) -> Guidance:
    """All weight on the sample with the least ``||f_S - f_T,k||``; of equals the first. A control.

    It has no gradient: a choice of one does not change by a little.
    """
    offset = samples.detach().float() - student_features.detach().float()
    nearest = offset.square().sum(dim=-1).argmin(dim=0)
    weights = offset.new_zeros(offset.shape[1], len(samples)).scatter(1, nearest.unsqueeze(1), 1)
    return Guidance(weights, weights)


def guided_target(
    weights: Float[Tensor, "B K"], samples: Float[Tensor, "K B D"]
) -> Float[Tensor, "B D"]:
    """``sum_k a_k f_T,k``, per input: step 6. Equal samples give that sample, to rounding."""
    return (weights.float().T.unsqueeze(-1) * samples.detach().float()).sum(dim=0)


def similarity_to_target(
    student_features: Float[Tensor, "B D"],
    samples: Float[Tensor, "K B D"],
    weights: Float[Tensor, "B K"],
) -> Float[Tensor, "B"]:
    """``sum_k a_k cos(f_S, f_T,k)``, a renormalised: how near the chosen samples are, in [-1, 1].

    To log, so detached. Against the mean over all samples it shows whether there is a choice.
    """
    weights = weights.detach()
    shares = weights / weights.sum(dim=1, keepdim=True)
    return (shares * cosine_similarity(student_features.detach(), samples)).sum(dim=1)


def passes_kept(weights: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """How many samples have a weight above zero; to log."""
    return (weights > 0).float().sum(dim=1)


def weight_entropy(weights: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """How evenly the student chooses: ``H(a) / log K``, in [0, 1]; to log, so detached.

    1 when all K weights are equal (h is too large, or the samples hardly differ), 0 when one has
    all (h is too small); 0 by definition for K = 1. Of ``attention_weights`` it judges h; of
    filtered weights, which are renormalised for it, it can reach ``log(kept) / log K`` at most.
    """
    num_samples = weights.shape[1]
    if num_samples == 1:
        return torch.zeros_like(weights[:, 0], dtype=torch.float32)
    weights = weights.detach().float()
    shares = weights / weights.sum(dim=1, keepdim=True)
    entropy = torch.special.entr(shares).sum(dim=1) / math.log(num_samples)
    return entropy.clamp(0, 1)  # log K is reached to rounding, and may be passed by it
