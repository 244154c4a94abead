"""Student-guided distillation, arXiv 2504.14307: the student weights K samples of the teacher's
features by their similarity to its own, and learns from the weighted mean.

Steps 4 to 6 of the paper, for one input::

    a_k    = softmax_k( <f_S, f_T,k> / h )          attention_weights
    a_k    = 0 below the e-th percentile of a       filter_by_percentile
    target = sum_k a_k f_T,k                        guided_target

``attention_guidance`` is the first two. The loss (step 7) is ``feature_mse``. Two controls can
replace ``attention_guidance``: ``mean_guidance`` and ``nearest_guidance``. (The control "a random
pass" is K = 1.) Dimensions: B batch, D features, K samples (teacher passes with dropout on).

The gradient goes through the weights to the student's features, and never to the samples. To keep
it out of the weights, detach the student's features first.

Computed in float32, whatever the type of the input. Products are written element by element for two
reasons: autocast would compute a matrix product in half precision, and this way equal samples get
equal bits.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kd_lightning.losses.feature_loss import unit_features

Similarity = Callable[[Float[Tensor, "B D"], Float[Tensor, "K B D"]], Float[Tensor, "B K"]]


class Guidance(NamedTuple):
    """The student's weights for the samples of each input.

    Attributes:
        weights: a_k of the target.
        attention: the weights before some were set to 0; each row sums to 1.
    """

    weights: Float[Tensor, "B K"]
    attention: Float[Tensor, "B K"]


def dot_similarity(
    student_features: Float[Tensor, "B D"], samples: Float[Tensor, "K B D"]
) -> Float[Tensor, "B K"]:
    """``<f_S, f_T,k>``, as in the paper. A sample with a large norm can beat the nearest sample."""
    return (student_features.float() * samples.float()).sum(dim=-1).T


def cosine_similarity(
    student_features: Float[Tensor, "B D"], samples: Float[Tensor, "K B D"]
) -> Float[Tensor, "B K"]:
    """``cos(f_S, f_T,k)``, in [-1, 1] for any scale of the features; needs h well below 1."""
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
            For h -> infinity the target is the mean of the samples, for h -> 0 the most similar
            one.
        similarity: ``dot_similarity`` (paper) or ``cosine_similarity``.

    Raises:
        ValueError: the bandwidth is not > 0.
    """
    if bandwidth == "auto":
        bandwidth = math.sqrt(student_features.shape[1])
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be > 0 or auto, got {bandwidth}")
    return torch.softmax(similarity(student_features, samples.detach()) / bandwidth, dim=1)


def filter_by_percentile(
    weights: Float[Tensor, "B K"], *, percentile: float, renormalize: bool
) -> Float[Tensor, "B K"]:
    """Keeps the weights at or above the percentile of their row, and sets the rest to 0: step 5.

    The percentile is the linear quantile of the row's K weights. It is not computed: the weights at
    or above it are those from the first order statistic that is not below it, and this has no
    interpolation to round. So the largest weight is always kept, and equal weights are kept or
    dropped together. At the 90th percentile, 1 of 5 or 10 samples is kept, 2 of 20, 3 of 30, 5 of
    50.

    Args:
        percentile: e, in [0, 100]; 0 keeps all.
        renormalize: divide the kept weights by their sum, so that a row sums to 1 again (released
            code). False does not divide (text of the paper); the target then shrinks by the weight
            that was dropped.

    Raises:
        ValueError: the percentile is not in [0, 100].
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile must be in [0, 100], got {percentile}")
    first_kept = math.ceil(percentile * (weights.shape[1] - 1) / 100)
    return _keep_from(weights, first_kept, renormalize)


def filter_by_top_k(
    weights: Float[Tensor, "B K"], *, top_k: int, renormalize: bool
) -> Float[Tensor, "B K"]:
    """Keeps the ``top_k`` largest weights of each row, or all if K is smaller; sets the rest to 0.

    The paper compares its percentile with such a fixed number. Weights equal to the smallest kept
    one are kept too, so that the order of the samples does not matter.

    Raises:
        ValueError: top_k is not >= 1.
    """
    if top_k < 1:
        raise ValueError(f"top_k must be >= 1, got {top_k}")
    return _keep_from(weights, max(0, weights.shape[1] - top_k), renormalize)


def _keep_from(weights: Tensor, first_kept: int, renormalize: bool) -> Tensor:
    """Keeps the weights of each row from this place on, in ascending order."""
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
    permuted: bool = False,
    match_norm: bool = False,
) -> Guidance:
    """``attention_weights``, of which only the largest are kept.

    The weight is 1 for K = 1. Equal samples get equal weights and are all kept. The released code
    has h = 5 (for 2250 features after a LayerNorm) and the 90th percentile of K = 30, renormalized.

    Args:
        percentile: see ``filter_by_percentile``; None with ``top_k``.
        top_k: see ``filter_by_top_k``; None with ``percentile``.
        permuted: a control: each input gets the weights of the input before it in the batch, so
            that they are as uneven as the student's own, but choose wrongly.
        match_norm: a control: the weights of each input are scaled so that its target has the norm
            of the mean of the samples. The largest dot products choose samples in which large
            features were kept, so the target of the paper is longer than that mean.

    Raises:
        ValueError: an argument is out of its range, or not exactly one of percentile and top_k is
            given.
    """
    if (percentile is None) == (top_k is None):
        raise ValueError(
            f"exactly one of percentile and top_k must be null, got {percentile} and {top_k}"
        )
    attention = attention_weights(
        student_features, samples, bandwidth=bandwidth, similarity=similarity
    )
    if permuted:
        attention = attention.roll(1, dims=0)
    if top_k is not None:
        kept = filter_by_top_k(attention, top_k=top_k, renormalize=renormalize)
    else:
        kept = filter_by_percentile(attention, percentile=percentile, renormalize=renormalize)
    return Guidance(kept * _scale_to_mean(kept, samples) if match_norm else kept, attention)


def _scale_to_mean(weights: Tensor, samples: Tensor) -> Tensor:
    """The norm of the mean of the samples, by that of the target; (B, 1), without a gradient."""
    mean = samples.detach().float().mean(dim=0)
    target = guided_target(weights.detach(), samples)
    of_mean, of_target = (
        torch.linalg.vector_norm(features, dim=1, keepdim=True) for features in (mean, target)
    )
    return of_mean / of_target.clamp_min(torch.finfo(torch.float32).tiny)


def mean_guidance(
    student_features: Float[Tensor, "B D"], samples: Float[Tensor, "K B D"]
) -> Guidance:
    """``a_k = 1 / K``: the target is the mean of the samples. A control without a choice."""
    weights = samples.new_full((samples.shape[1], len(samples)), 1 / len(samples)).float()
    return Guidance(weights, weights)


def nearest_guidance(
    student_features: Float[Tensor, "B D"], samples: Float[Tensor, "K B D"]
) -> Guidance:
    """All weight on the sample with the smallest ``||f_S - f_T,k||``, the first of equals. A
    control.

    It has no gradient: the choice of one sample is not differentiable.
    """
    offset = samples.detach().float() - student_features.detach().float()
    nearest = offset.square().sum(dim=-1).argmin(dim=0)
    weights = offset.new_zeros(offset.shape[1], len(samples)).scatter(1, nearest.unsqueeze(1), 1)
    return Guidance(weights, weights)


def guided_target(
    weights: Float[Tensor, "B K"], samples: Float[Tensor, "K B D"]
) -> Float[Tensor, "B D"]:
    """``sum_k a_k f_T,k`` for each input: step 6. Equal samples give the sample, up to rounding."""
    return (weights.float().T.unsqueeze(-1) * samples.detach().float()).sum(dim=0)


def similarity_to_target(
    student_features: Float[Tensor, "B D"],
    samples: Float[Tensor, "K B D"],
    weights: Float[Tensor, "B K"],
) -> Float[Tensor, "B"]:
    """``sum_k a_k cos(f_S, f_T,k)``, a renormalized: how near the chosen samples are, in [-1, 1].

    A metric, so it is detached. A value above the mean over all samples shows that the student
    chooses.
    """
    weights = weights.detach()
    shares = weights / weights.sum(dim=1, keepdim=True)
    return (shares * cosine_similarity(student_features.detach(), samples)).sum(dim=1)


def num_kept_samples(weights: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """Number of samples whose weight is above zero; a metric."""
    return (weights > 0).float().sum(dim=1)


def weight_entropy(weights: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """How even the student's weights are: ``H(a) / log K``, in [0, 1]. A metric, so it is detached.

    1 when all K weights are equal (h is too large, or the samples hardly differ). 0 when one sample
    has all weight (h is too small), and 0 by definition for K = 1. The value for
    ``attention_weights`` shows whether h is right. Filtered weights are renormalized here; their
    value is at most ``log(number of kept samples) / log K``.
    """
    num_samples = weights.shape[1]
    if num_samples == 1:
        return torch.zeros_like(weights[:, 0], dtype=torch.float32)
    weights = weights.detach().float()
    shares = weights / weights.sum(dim=1, keepdim=True)
    entropy = torch.special.entr(shares).sum(dim=1) / math.log(num_samples)
    return entropy.clamp(0, 1)  # rounding may bring it above log K
