"""Soft targets: the softened prediction of a teacher or a peer, Hinton et al., arXiv 1503.02531.

Dimensions: B batch, C classes. T is the temperature: ``p^T = softmax(z / T)``.

The functions compute in float32, whatever the type of the input (bf16 and fp16 lose small
probabilities), and in log space, so that logits of 1e4 give finite values. The Kullback-Leibler
divergence includes the entropy of the target, so it is zero when the two predictions are equal.

A soft loss (``conf/soft_loss/``) is a function ``soft_loss(student_logits, teacher_logits, labels,
temperature) -> (B,)``. Each uses the arguments that it needs. There are ``kl_soft_loss`` and
``reverse_kl_soft_loss`` here, ``dkd_soft_loss`` in ``dkd.py``, ``dist_soft_loss`` in ``dist.py``,
``mlkd_soft_loss`` in ``mlkd.py``. The temperature can be a tensor that learns
(``learned_temperature.py``): its gradient is that of both predictions.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Labels = Int[Tensor, "B"] | Float[Tensor, "B C"]
Temperature = float | Float[Tensor, ""]
SoftLoss = Callable[[Tensor, Tensor, Labels | None, Temperature], Tensor]


def soft_log_probs(logits: Float[Tensor, "B C"], temperature: Temperature) -> Float[Tensor, "B C"]:
    """``log softmax(z / T)``, in float32.

    Raises:
        ValueError: the temperature is a number that is not > 0.
    """
    # a tensor is not looked at: that would wait for the device
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    return F.log_softmax(logits.float() / temperature, dim=1)


def mean_log_probs(
    logits: Sequence[Float[Tensor, "B C"]], temperature: float
) -> Float[Tensor, "B C"]:
    """The log of the mean of several nets' softened probabilities: ``log mean_i softmax(z_i / T)``.

    This is the target of a student with several peers. At T = 1 it is the prediction of an ensemble
    that averages probabilities. For one net it is the net's ``soft_log_probs``, bit for bit.

    It is not a loss, so the gradient goes to every net; ``soft_target_kl_to`` detaches it.

    Raises:
        ValueError: the sequence is empty, or the temperature is not > 0.
    """
    if not logits:
        raise ValueError("a mean of predictions needs the logits of one net or more, got none")
    log_probs = torch.stack([soft_log_probs(z, temperature) for z in logits])
    return log_probs.logsumexp(dim=0) - math.log(len(logits))


def soft_target_kl(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    temperature: Temperature,
) -> Float[Tensor, "B"]:
    """Divergence of the student's softened prediction from the teacher's, in nats times T^2.

    ``T^2 KL(p_teacher^T || p_student^T) = T^2 sum_c p_teacher^T (log p_teacher^T -
    log p_student^T)``: section 2 of the paper. The factor T^2 keeps the size of the gradient when T
    changes: as T grows, the loss tends to ``||d||^2 / (2 C)``, where d is the difference of the
    logits, each centred over the classes (section 2.1).

    Zero when the two softened predictions are equal, that is, when the logits differ by a
    constant. The gradient goes to the student, and to a temperature that learns; the teacher's
    logits are detached here.

    Raises:
        ValueError: the temperature is not > 0.
    """
    return joint_soft_kl(student_logits, teacher_logits.detach(), temperature)


def soft_target_kl_to(
    student_logits: Float[Tensor, "B C"],
    target_log_probs: Float[Tensor, "B C"],
    temperature: float,
) -> Float[Tensor, "B"]:
    """``soft_target_kl`` for a target that is already log-probabilities *at this temperature*.

    For targets that are not the logits of one net, such as the mean of several peers:
    ``soft_target_kl_to(z, mean_log_probs(peers, T), T)``. A target made at another temperature
    gives another loss; this function cannot notice it.

    Zero when the student's softened prediction is the target. The gradient goes to the student
    alone: the target is detached here.

    Raises:
        ValueError: the temperature is not > 0.
    """
    student = soft_log_probs(student_logits, temperature)
    target = target_log_probs.detach().float()
    kl = F.kl_div(student, target, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * kl


def kl_soft_loss(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    labels: Labels | None,
    temperature: Temperature,
) -> Float[Tensor, "B"]:
    """``soft_target_kl`` with the signature of a soft loss; the labels are not used."""
    return soft_target_kl(student_logits, teacher_logits, temperature)


def reverse_kl_soft_loss(
    student_logits: Float[Tensor, "B C"],
    teacher_logits: Float[Tensor, "B C"],
    labels: Labels | None,
    temperature: Temperature,
) -> Float[Tensor, "B"]:
    """``T^2 KL(p_student^T || p_teacher^T)``: the other direction, in nats times T^2.

    The student is punished for probability where the teacher has none, and may leave out classes
    to which the teacher gives some. As T grows, it tends to the same as ``soft_target_kl``. Zero
    when the two softened predictions are equal. The gradient goes to the student, and to a
    temperature that learns.

    Raises:
        ValueError: the temperature is not > 0.
    """
    student = soft_log_probs(student_logits, temperature)
    teacher = soft_log_probs(teacher_logits.detach(), temperature)
    return temperature**2 * (student.exp() * (student - teacher)).sum(dim=1)


def function_of(soft_loss: SoftLoss) -> Callable:
    """The function of a soft loss, without the settings that its YAML has given."""
    return soft_loss.func if isinstance(soft_loss, functools.partial) else soft_loss


def weighs_by_probability(soft_loss: SoftLoss) -> bool:
    """Whether each class of a soft loss counts as much as the teacher's softened probability of it,
    so that classes without any can be left out. DKD and DIST look at all classes, and in the
    reverse KL each class counts as much as the student's probability.
    """
    return function_of(soft_loss) is kl_soft_loss


def joint_soft_kl(
    student_logits: Float[Tensor, "B C"],
    target_logits: Float[Tensor, "B C"],
    temperature: Temperature,
) -> Float[Tensor, "B"]:
    """``soft_target_kl`` with a target that learns too: the gradient goes to both.

    Zero, with a gradient of zero, when the two softened predictions are equal.

    Raises:
        ValueError: the temperature is not > 0.
    """
    student = soft_log_probs(student_logits, temperature)
    target = soft_log_probs(target_logits, temperature)
    kl = F.kl_div(student, target, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * kl
