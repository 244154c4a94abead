"""How much K stochastic predictions of the same input differ.

Dimensions: K samples (passes with dropout on), B batch, C classes. Computed in float32, whatever
the type of the input. Finite at logits of 1e4.
"""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def mutual_information(sample_logits: Float[Tensor, "K B C"]) -> Float[Tensor, "B"]:
    """Mutual information of prediction and pass, in nats: BALD, Houlsby et al., arXiv 1112.5745,
    section 3.

    ``H(mean_k p_k) - mean_k H(p_k)``. It is computed as ``mean_k KL(p_k || mean_k p_k)``, which is
    equal and subtracts no two large numbers.

    Zero when all passes predict the same distribution, even an uncertain one, and therefore for
    K = 1. At most log C, and at most log K. The gradient goes to all passes.
    """
    log_probs = F.log_softmax(sample_logits.float(), dim=-1)
    mean = log_probs.logsumexp(dim=0) - math.log(len(log_probs))
    kl = (log_probs.exp() * (log_probs - mean)).sum(dim=-1)
    return kl.mean(dim=0).clamp_min(0)  # rounding may bring it below zero for equal passes


def disagreement(sample_logits: Float[Tensor, "K B C"]) -> Float[Tensor, "B"]:
    """Share of the passes that predict another class than the mean prediction, in [0, 1].

    The mean is that of the probabilities, so there are no equal numbers of votes. Zero when all
    passes predict the same class, and therefore for K = 1. It has no gradient.
    """
    mean_class = sample_logits.float().softmax(dim=-1).mean(dim=0).argmax(dim=-1)
    return (sample_logits.argmax(dim=-1) != mean_class).float().mean(dim=0)
