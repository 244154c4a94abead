"""Distillation from a stronger teacher (DIST), Huang et al., arXiv 2205.10536.

The student need not match the teacher's probabilities, only be in correlation with them: over the
classes of each sample (inter-class), and over the batch's samples of each class (intra-class).
Dimensions: B batch, C classes.
"""

from jaxtyping import Float
from torch import Tensor

from kd_lightning.losses.logit_standardization import standardize
from kd_lightning.losses.soft_targets import Labels, check_weights, soft_log_probs


def pearson_correlation(
    a: Float[Tensor, "B C"], b: Float[Tensor, "B C"], dim: int
) -> Float[Tensor, "N"]:
    """Pearson's correlation of a and b along ``dim``, in [-1, 1].

    0, and without gradient, where either is constant: that has no correlation. The gradient goes
    to both. (The released code of DIST adds 1e-8 to the denominator instead, which is the product
    of two norms and can be smaller where probabilities are.)
    """
    return (standardize(a, dim) * standardize(b, dim)).mean(dim=dim)


def correlation_soft_loss(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    labels: Labels | None,
    temperature: float,
    *,
    inter_weight: float,
    intra_weight: float,
) -> Float[Tensor, "B"]:
    """``T^2 (inter_weight (1 - r(p_s, p_t)) + intra_weight (1 - mean_c r(p_s[:, c], p_t[:, c])))``.

    r is Pearson's correlation and p = softmax(z / T); each ``1 - r`` is in [0, 2]. The second term
    is a value of the batch: every sample gets the same one, so that the mean over the samples is
    the paper's loss, and a weight on samples would weigh it by its mean. With several devices it
    is each device's own share of the batch. A batch of one sample has no second term: it is a
    constant there, as it is for a class whose probability is the same for all samples.

    T^2 is that of the authors' later code. It keeps no gradient's size, as it does in
    ``soft_target_kl``: the correlations tend to those of the logits as T grows, whatever the range
    of the logits. So this asks little about how sure the student is: look at its calibration.

    Zero, to rounding, when the two softened predictions are equal. The gradient goes to the
    student alone: the target is detached here. The labels are not used. Computed in float32.

    Args:
        inter_weight: beta; 1, and 2 on CIFAR-100, where T is 4.
        intra_weight: gamma; 1, and 2 on CIFAR-100.

    Raises:
        ValueError: a weight is negative or both are 0, intra_weight is 0 for two classes (any two
            probabilities of two classes are in full correlation), or the temperature is not > 0.
    """
    check_weights(inter_weight=inter_weight, intra_weight=intra_weight)
    if student_logits.shape[1] == 2 and not intra_weight:
        raise ValueError(
            "with two classes inter_weight teaches nothing, so intra_weight must be > 0"
        )
    student = soft_log_probs(student_logits, temperature).exp()
    target = soft_log_probs(teacher_logits, temperature).detach().exp()
    inter = 1 - pearson_correlation(student, target, dim=1)
    intra = 1 - pearson_correlation(student, target, dim=0).mean()
    return temperature**2 * (inter_weight * inter + intra_weight * intra)
