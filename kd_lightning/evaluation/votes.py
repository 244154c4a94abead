"""The vote of several nets: a class for each sample, and no probabilities.

A share of the votes is no prediction of a probability: with M nets it takes M + 1 values, and is 0
for the label wherever nobody chose it, at an infinite negative log-likelihood. So a vote has an
accuracy and an agreement with the teacher, and nothing else.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def majority_vote(logits: Sequence[Float[Tensor, "N C"]]) -> Int[Tensor, " N"]:
    """The class that most nets choose; among tied classes the one of highest mean probability."""
    stacked = torch.stack(list(logits)).float()
    classes = stacked.shape[-1]
    votes = F.one_hot(stacked.argmax(-1), classes).sum(0)
    tied = votes == votes.amax(-1, keepdim=True)
    mean = stacked.softmax(-1).mean(0)
    return mean.masked_fill(~tied, -1.0).argmax(-1)
