"""Distillation from a stronger teacher (DIST), Huang et al., arXiv 2205.10536.

The student does not have to match the teacher's probabilities. They only have to be correlated:
over the classes of each sample (inter-class), and over the samples of the batch for each class
(intra-class). Dimensions: B batch, C classes.
"""

import math

from jaxtyping import Float
from torch import Tensor

from kd_lightning.losses.logit_standardization import standardize
from kd_lightning.losses.soft_targets import Labels, Temperature, soft_log_probs


def pearson_correlation(
    a: Float[Tensor, "B C"], b: Float[Tensor, "B C"], dim: int
) -> Float[Tensor, "N"]:
    """Pearson's correlation of a and b along ``dim``, in [-1, 1].

    0, and without gradient, where a or b is constant: a constant has no correlation. The gradient
    goes to both. (The released code of DIST adds 1e-8 to the denominator instead. The denominator
    is the product of two norms, which can be smaller than that for small probabilities.)
    """
    return (standardize(a, dim) * standardize(b, dim)).mean(dim=dim)


def dist_soft_loss(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    labels: Labels | None,
    temperature: Temperature,
    *,
    inter_weight: float,
    intra_weight: float,
) -> Float[Tensor, "B"]:
    """``T^2 (inter_weight (1 - r(p_s, p_t)) + intra_weight (1 - mean_c r(p_s[:, c], p_t[:, c])))``.

    r is Pearson's correlation and p = softmax(z / T); each ``1 - r`` is in [0, 2]. The second term
    is one value for the whole batch. Every sample gets this value, so that the mean over the
    samples is the loss of the paper; weights on samples multiply it by their mean. With several
    devices, each device computes it from its own part of the batch. It is constant, without
    gradient, for a batch of one sample and for a class that has the same probability for all
    samples.

    T^2 comes from the authors' later code. Unlike in ``soft_target_kl`` it does not keep the size
    of the gradient: as T grows, the correlations tend to those of the logits, whatever the range of
    the logits. So this loss says little about how confident the student should be: look at its
    calibration.

    Zero, up to rounding, when the two softened predictions are equal. The gradient goes to the
    student, and to a temperature that learns; the teacher's logits are detached here. The labels
    are not used. Computed in float32.

    Args:
        inter_weight: beta; 1, and 2 on CIFAR-100, where T is 4.
        intra_weight: gamma; 1, and 2 on CIFAR-100.

    Raises:
        ValueError: a weight is negative or both are 0, intra_weight is 0 for two classes (any two
            predictions over two classes are fully correlated), or the temperature is not > 0.
    """
    if min(inter_weight, intra_weight) < 0 or not 0 < inter_weight + intra_weight < math.inf:
        raise ValueError(
            "inter_weight and intra_weight must be >= 0, and one of them > 0, "
            f"got {inter_weight} and {intra_weight}"
        )
    if student_logits.shape[1] == 2 and not intra_weight:
        raise ValueError(
            "intra_weight must be > 0 for two classes, where the inter-class term teaches nothing, "
            f"got {intra_weight}"
        )
    student = soft_log_probs(student_logits, temperature).exp()
    target = soft_log_probs(teacher_logits.detach(), temperature).exp()
    inter = 1 - pearson_correlation(student, target, dim=1)
    intra = 1 - pearson_correlation(student, target, dim=0).mean()
    return temperature**2 * (inter_weight * inter + intra_weight * intra)
