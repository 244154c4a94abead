"""How sure a teacher is of each sample, as a weight in [0, 1]: 1 when sure.

Every confidence has one signature, ``confidence(logits, labels=None, samples=None) -> (B,)``, so a
method takes any of them (``conf/confidence/``) and passes what it has:

- ``logits``: (B, C), of the teacher. A temperature inside the weight is the caller's:
  ``confidence(logits.float() / T_w)``.
- ``labels``: (B,) class indices or (B, C) distributions; used by ``correct_confidence``.
- ``samples``: (K, B, C) logits of K stochastic passes; used by ``mutual_information_confidence``.

Dimensions: B batch, C classes, K samples. Confidences are weights, so they are detached: no
gradient, not even to a peer. They are computed in float32 whatever comes in, are finite at logits
of 1e4, and do not change, to rounding, when a constant is added to the logits. With one class
there is nothing to be sure of: C = 1 raises ``ValueError``.

The gates below turn a threshold on a confidence into weights.
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

    An *uncertainty*: 0 when sure, log C when the prediction is uniform. It is no confidence, and
    the gradient goes to the logits.
    """
    log_probs = F.log_softmax(logits.float(), dim=1)
    return -(log_probs.exp() * log_probs).sum(dim=1)


def entropy_confidence(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``w = 1 - H(p) / log C``: uncertainty-aware dual-student distillation, arXiv 2511.18826.

    0 for a uniform prediction, 1 when all probability is on one class.
    """
    return 1 - entropy_weight(logits)


def entropy_weight(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``1 - w = H(p) / log C``: the *opposite* sign, more weight where the teacher is unsure.

    Entropy-reweighted distillation (ER-KD, arXiv 2311.13621), with the entropy in units of its
    maximum. Not a confidence, hence the name; here because it takes the same place in a method.
    """
    num_classes = _num_classes(logits)
    share = predictive_entropy(logits.detach()) / math.log(num_classes)
    return share.clamp(0, 1)  # log C is reached to rounding, and may be passed by it


def uniform_confidence(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``w = 1``: every sample counts the same, which is plain distillation."""
    _num_classes(logits)
    return torch.ones_like(logits[:, 0], dtype=torch.float32)


def max_probability_confidence(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``w = max_c p_c``: Hendrycks & Gimpel, arXiv 1610.02136.

    The probability itself, so a threshold on it means what it says. It is therefore never 0: a
    uniform prediction has 1 / C.
    """
    _num_classes(logits)
    return _probs(logits).amax(dim=1)


def margin_confidence(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``w = p_(1) - p_(2)``: how far the most probable class is ahead of the second.

    0 when two classes tie for the first place, whatever the others; 1 when all probability is on
    one class.
    """
    _num_classes(logits)
    first, second = _probs(logits).topk(2, dim=1).values.unbind(dim=1)
    return first - second


def correct_confidence(
    logits: Float[Tensor, "B C"], labels: Labels | None = None, samples: Tensor | None = None
) -> Float[Tensor, "B"]:
    """``w = 1`` where the teacher is right, 0 where it is wrong.

    Right is: its most probable class is the label, or the heaviest class of a label distribution
    (MixUp, CutMix). Where classes tie, the first of them is the prediction.

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

    1 when the passes agree, however unsure each is: it measures what the net does not know, not
    what cannot be known. 0 only when C passes or more are each sure, and spread over all C
    classes; K passes cannot go below ``1 - log K / log C``.

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
    return (1 - share).clamp(0, 1)  # log C is reached to rounding, and may be passed by it


def soft_gate(confidence: Float[Tensor, "B"], threshold: float) -> Float[Tensor, "B"]:
    """Keeps ``w`` where ``w >= threshold``, 0 elsewhere. Threshold 0 keeps all as they are.

    Raises:
        ValueError: the threshold is not in [0, 1].
    """
    return confidence * _passes(confidence, threshold)


def hard_gate(confidence: Float[Tensor, "B"], threshold: float) -> Float[Tensor, "B"]:
    """1 where ``w >= threshold``, 0 elsewhere. Threshold 0 makes every weight 1.

    Raises:
        ValueError: the threshold is not in [0, 1].
    """
    return _passes(confidence, threshold).float()


def _passes(confidence: Float[Tensor, "B"], threshold: float) -> Bool[Tensor, "B"]:
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
