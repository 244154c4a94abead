"""Decoupled knowledge distillation (DKD), Zhao et al., arXiv 2203.08679.

The divergence from the teacher has two parts. Here each part has a weight of its own::

    KL(p_t || p_s) = KL(b_t || b_s) + (1 - p_t,y) KL(q_t || q_s)

y is the target class. b = (p_y, 1 - p_y) is the probability of the target class, and of all others
together. q = softmax(z / T) over the C - 1 other classes. The second part says which other classes
a sample resembles. In plain distillation it counts less the more confident the teacher is.
Dimensions: B batch, C classes.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.soft_targets import Labels, Temperature, soft_log_probs


def dkd_soft_loss(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    labels: Labels,
    temperature: Temperature,
    *,
    target_weight: float,
    nontarget_weight: float,
) -> Float[Tensor, "B"]:
    """``T^2 (target_weight KL(b_t || b_s) + nontarget_weight KL(q_t || q_s))``, in nats times T^2.

    With target_weight = 1 and nontarget_weight = ``1 - p_t,y`` of each sample it would be
    ``soft_target_kl`` (equation 7 of the paper). With two classes the second part is 0.

    Zero when the two softened predictions are equal. The gradient goes to the student, and to a
    temperature that learns; the teacher's logits are detached here. Computed in float32, in log
    space.

    Args:
        labels: class indices, or label distributions (MixUp, CutMix). The target class of a
            distribution is its most probable class, the first of them if several are equal. The
            class that a sample was mixed with then counts as one of the others.
        target_weight: alpha; 1 in the paper.
        nontarget_weight: beta; depends on the nets: at T = 4, 8 for resnet32x4 and resnet8x4, 2 for
            resnet56 and resnet20; 0.5 on ImageNet, where T is 1.

    Raises:
        ValueError: there are fewer than two classes, a weight is negative or both are 0,
            target_weight is 0 for two classes, or the temperature is not > 0.
    """
    if min(target_weight, nontarget_weight) < 0 or not (
        0 < target_weight + nontarget_weight < math.inf
    ):
        raise ValueError(
            "target_weight and nontarget_weight must be >= 0, and one of them > 0, "
            f"got {target_weight} and {nontarget_weight}"
        )
    if student_logits.shape[1] < 2:
        raise ValueError(
            "decoupled distillation needs logits (B, C) of C >= 2 classes, got shape "
            f"{tuple(student_logits.shape)}"
        )
    if student_logits.shape[1] == 2 and not target_weight:
        raise ValueError(
            "target_weight must be > 0 for two classes, where the other term is 0, "
            f"got {target_weight}"
        )
    if labels.ndim == 2:
        labels = labels.argmax(dim=1)
    student = soft_log_probs(student_logits, temperature)
    target = soft_log_probs(teacher_logits.detach(), temperature)
    student_binary, student_others = _decouple(student, labels)
    target_binary, target_others = _decouple(target, labels)
    parts = target_weight * _kl(student_binary, target_binary)
    parts = parts + nontarget_weight * _kl(student_others, target_others)
    return temperature**2 * parts


def _decouple(
    log_probs: Float[Tensor, "B C"], labels: Tensor
) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B C-1"]]:
    """log b and log q. The probabilities of each row sum to 1."""
    labels = labels.unsqueeze(1)
    others = torch.arange(log_probs.shape[1] - 1, device=log_probs.device).expand(len(labels), -1)
    others = log_probs.gather(1, others + (others >= labels))  # the indices skip the target class
    rest = others.logsumexp(dim=1, keepdim=True)
    return torch.cat([log_probs.gather(1, labels), rest], dim=1), others - rest


def _kl(student: Float[Tensor, "B N"], target: Float[Tensor, "B N"]) -> Float[Tensor, "B"]:
    return F.kl_div(student, target, reduction="none", log_target=True).sum(dim=1)
