"""Multi-level logit distillation (MLKD), Jin, Wang and Lin, CVPR 2023.

The student is compared with the teacher at several temperatures, and each time at three levels:
each sample by itself, the samples of a batch with each other, and the classes with each other.
Dimensions: B batch, C classes.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kd_lightning.losses.soft_targets import Labels, Temperature, soft_log_probs, soft_target_kl


def mlkd_soft_loss(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    labels: Labels | None,
    temperature: Temperature,
    *,
    factors: Sequence[float],
    batch_weight: float,
    class_weight: float,
) -> Float[Tensor, "B"]:
    """Sum over the temperatures t of an instance, a batch and a class term; for sample i::

        t^2 KL(q_i || p_i) + batch_weight * sum_j (Q Q' - P P')_ij^2
                           + class_weight * (1/C) || Q' Q - P' P ||^2

    P and Q (B, C) are the predictions softmax(z / t) of student and teacher, p_i and q_i their
    rows, and ' transposes. The mean of the batch term over the samples is
    ``(1/B) ||Q Q' - P P'||^2``. The class term is one value for the whole batch, which every sample
    gets. It is of the size of ``(B / C)^2``. With several devices, each device computes both terms
    from its own part of the batch.

    As released (https://github.com/Jin-Ying/Multi-Level-Logit-Distillation): the three terms
    and the temperatures. The released training has more. It sees each sample in a
    weak and in a strong augmentation at once, and is to keep only the less confident half of the
    samples, or classes, of the weak one. But that mask is multiplied with a term that is a mean
    already, so it halves the term. The batch and class terms of the strong one are computed and not
    added. Here are one augmentation and no mask.

    Zero, up to rounding, when the softened predictions are equal. The gradient goes to the student,
    and to a temperature that learns; the teacher's logits are detached here. The labels are not
    used. Computed in float32.

    Args:
        factors: t / T of each temperature.
        batch_weight, class_weight: of two terms, beside 1 for the instance term; >= 0. A third
            has the released balance, for 64 samples and 100 classes.

    Raises:
        ValueError: a weight is negative, there is no factor, or one, or the temperature, is not
            > 0.
    """
    if not (0 <= batch_weight < math.inf and 0 <= class_weight < math.inf):
        raise ValueError(
            f"batch_weight and class_weight must be >= 0, got {batch_weight} and {class_weight}"
        )
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise ValueError(f"factors must be numbers > 0, one or more, got {list(factors)}")
    losses = []
    for factor in factors:
        t = factor * temperature
        student = soft_log_probs(student_logits, t).exp()
        teacher = soft_log_probs(teacher_logits.detach(), t).exp()
        of_batch = _product_distances(student, teacher).sum(dim=1)
        of_classes = _product_distances(student.T, teacher.T).sum() / student.shape[1]
        instance = soft_target_kl(student_logits, teacher_logits, t)
        losses.append(instance + batch_weight * of_batch + class_weight * of_classes)
    return torch.stack(losses).sum(dim=0)


def _product_distances(a: Float[Tensor, "N M"], b: Float[Tensor, "N M"]) -> Float[Tensor, "N N"]:
    """Squared differences of the products of all pairs of rows."""
    # with autocast the products would be in half precision
    with torch.autocast(a.device.type, enabled=False):
        return (a @ a.T - b @ b.T).square()
