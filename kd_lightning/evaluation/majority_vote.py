"""The majority vote of several nets: one class for each sample, without probabilities.

The share of votes for a class is not a useful probability. With M nets it takes only M + 1 values.
It is 0 if no net chose the label, and then the negative log-likelihood is infinite. So a vote has
an accuracy and an agreement with the teacher, and no other metric.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def majority_vote(logits: Sequence[Float[Tensor, "N C"]]) -> Int[Tensor, " N"]:
    """The class that most nets choose. Ties go to the tied class of highest mean probability."""
    stacked = torch.stack(list(logits)).float()
    classes = stacked.shape[-1]
    votes = F.one_hot(stacked.argmax(-1), classes).sum(0)
    tied = votes == votes.amax(-1, keepdim=True)
    mean = stacked.softmax(-1).mean(0)
    return mean.masked_fill(~tied, -1.0).argmax(-1)
