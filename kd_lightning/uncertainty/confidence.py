"""How confident a teacher is in each sample, as a weight in [0, 1]: 1 when it is certain.

All confidences have the signature ``confidence(logits, labels=None, samples=None) -> (B,)``, so a
method can use any of them (``conf/confidence/``):

- ``logits``: (B, C), of the teacher. The caller applies a temperature, if there is one:
  ``confidence(logits.float() / T_w)``.
- ``labels``: (B,) class indices or (B, C) distributions; used by ``correct_confidence``.
- ``samples``: (K, B, C) logits of K stochastic passes; used by ``mutual_information_confidence``.

Dimensions: B batch, C classes, K samples. Confidences are weights, so they are detached: no
gradient, not even to a peer. They are computed in float32, whatever the type of the input. They are
finite at logits of 1e4, and do not change, up to rounding, when a constant is added to the logits.
C = 1 raises ``ValueError``: with one class every prediction is certain.

The gates below turn a confidence and a threshold into weights.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.uncertainty.samples import mutual_information

Labels = Int[Tensor, "B"] | Float[Tensor, "B C"]


def predictive_entropy(logits: Float[Tensor, "B C"]) -> Float[Tensor, "B"]:
    """Entropy of the prediction, in nats: ``H(p) = - sum_c p_c log p_c``, p = softmax(z).

    This is an *uncertainty* and not a confidence: 0 for a certain prediction, log C for a uniform
    one. The gradient goes to the logits.
    """
    log_probs = F.log_softmax(logits.float(), dim=1)
    return -(log_probs.exp() * log_probs).sum(dim=1)


def entropy_confidence(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``w = 1 - H(p) / log C``: uncertainty-aware dual-student distillation, arXiv 2511.18826.

    0 for a uniform prediction. 1 when all probability is on one class.
    """
    return 1 - entropy_weight(logits)


def entropy_weight(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``1 - w = H(p) / log C``: the *opposite* of a confidence, high for an uncertain teacher.

    Entropy-reweighted distillation (ER-KD, arXiv 2311.13621), with the entropy in units of its
    maximum. It is in this file because a method uses it in the place of a confidence.
    """
    num_classes = _num_classes(logits)
    share = predictive_entropy(logits.detach()) / math.log(num_classes)
    return share.clamp(0, 1)  # rounding may bring it above log C


def uniform_confidence(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``w = 1``: all samples have equal weight, as in plain distillation."""
    _num_classes(logits)
    return torch.ones_like(logits[:, 0], dtype=torch.float32)


def max_probability_confidence(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``w = max_c p_c``: Hendrycks & Gimpel, arXiv 1610.02136.

    It is not rescaled, so a threshold on it is a probability. It is therefore never 0: a uniform
    prediction has 1 / C.
    """
    _num_classes(logits)
    return _probs(logits).amax(dim=1)


def margin_confidence(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``w = p_(1) - p_(2)``: the largest probability minus the second largest.

    0 when the two largest probabilities are equal. 1 when all probability is on one class.
    """
    _num_classes(logits)
    first, second = _probs(logits).topk(2, dim=1).values.unbind(dim=1)
    return first - second


def correct_confidence(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``w = 1`` where the teacher is correct, 0 where it is wrong.

    Correct means that its most probable class is the label, or the most probable class of a label
    distribution (MixUp, CutMix). If several classes are equally probable, the first one counts.

    Raises:
        ValueError: there are no labels.
    """
    _num_classes(logits)
    if labels is None:
        raise ValueError("correct_confidence needs labels, got labels=None")
    if labels.ndim == 2:
        labels = labels.argmax(dim=1)
    return (logits.argmax(dim=1) == labels).float()


def mutual_information_confidence(
    logits: Float[Tensor, "B C"],
    labels: Labels | None = None,
    samples: Float[Tensor, "K B C"] | None = None,
) -> Float[Tensor, "B"]:
    """``w = 1 - I / log C``, I the mutual information of K stochastic passes (BALD).

    1 when the passes agree, even if each of them is uncertain: it measures the uncertainty of the
    model (epistemic), not that of the data (aleatoric). 0 only when each pass is certain and the
    passes are spread evenly over all C classes. With K passes it is at least ``1 - log K / log C``.

    Raises:
        ValueError: there are no samples.
    """
    num_classes = _num_classes(logits)
    if samples is None:
        raise ValueError(
            "mutual_information_confidence needs the logits of K stochastic passes, "
            "got samples=None: use a teacher with dropout, or another confidence"
        )
    share = mutual_information(samples.detach()) / math.log(num_classes)
    return (1 - share).clamp(0, 1)  # rounding may bring the share above 1


def soft_gate(confidence: Float[Tensor, "B"], threshold: float) -> Float[Tensor, "B"]:
    """``w`` where ``w >= threshold``, 0 elsewhere. Threshold 0 changes nothing.

    Raises:
        ValueError: the threshold is not in [0, 1].
    """
    return confidence * _reaches(confidence, threshold)


def hard_gate(confidence: Float[Tensor, "B"], threshold: float) -> Float[Tensor, "B"]:
    """1 where ``w >= threshold``, 0 elsewhere. Threshold 0 makes every weight 1.

    Raises:
        ValueError: the threshold is not in [0, 1].
    """
    return _reaches(confidence, threshold).float()


def _reaches(confidence: Float[Tensor, "B"], threshold: float) -> Bool[Tensor, "B"]:
    if not 0 <= threshold <= 1:
        raise ValueError(f"confidence threshold must be in [0, 1], got {threshold}")
    return confidence >= threshold


def _probs(logits: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    return logits.detach().float().softmax(dim=1)


def _num_classes(logits: Float[Tensor, "B C"]) -> int:
    if logits.shape[1] < 2:
        raise ValueError(
            f"a confidence needs logits (B, C) of C >= 2 classes, got shape {tuple(logits.shape)}"
        )
    return logits.shape[1]
