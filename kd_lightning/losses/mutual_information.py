"""Mutual information of two layers, estimated and maximized: MIMKD, Shrivastava, Qi and Ordonez,
arXiv 2110.15946.

    loss of two layers = -estimate, from critic scores u_ij = <phi_t(t_i), phi_s(s_j)> / sqrt(U)
    jsd: estimate_i = [log 2 - softplus(-u_ii)] - mean over j != i of [softplus(u_ij) - log 2]
    nce: estimate_i = log N + log( exp(u_ii) / sum_j exp(u_ij) )

After the paper's description: it names a global and a local term, and its text and code were not at
hand. The estimators and the form of the critics are those of Deep InfoMax (arXiv 1808.06670), on
which this family builds. Ours are the width U = 128, the weight 1, and two things in the critics:
layer norm instead of batch norm, so that the embedding of a sample does not depend on its batch,
and the division by sqrt(U), which keeps the first scores near 1.

Two vectors are the global term. A vector and a map are the local term: the vector is scored against
every position, each position has its own estimate, and the estimates are averaged. Two maps are
scored position by position, after the larger one is pooled to the smaller size.

The negatives of a sample are the other samples of its batch; under DDP, of its process. So the size
of the batch is a part of the definition: nce cannot say more than log N. Samples of one class are
negatives of each other too. A batch of one sample has no negatives, and the estimate is 0.

Dimensions: N samples of a batch, U width of the critics, P positions (1 for a vector).
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.losses.feature_loss import FeatureLoss, check_dimensions, pool_to_smaller

LOG_2 = math.log(2)


def jsd_estimate(scores: Float[Tensor, "*P N N"]) -> Float[Tensor, "*P N"]:
    """The Jensen-Shannon estimate of each row i, whose positive is column i.

    It is no lower bound of the mutual information in nats, but rises and falls with it. At most
    2 log 2, for any N. 0 for scores of 0, and for one sample. The gradient goes to all scores.
    """
    num = scores.shape[-1]
    scores = scores.float()
    positive = LOG_2 - F.softplus(-scores.diagonal(dim1=-2, dim2=-1))
    itself = torch.eye(num, dtype=torch.bool, device=scores.device)
    negative = (F.softplus(scores) - LOG_2).masked_fill(itself, 0).sum(-1) / max(1, num - 1)
    return (positive - negative) * (num > 1)


def nce_estimate(scores: Float[Tensor, "*P N N"]) -> Float[Tensor, "*P N"]:
    """The InfoNCE estimate of each row i, whose positive is column i, in nats.

    Its mean is a lower bound of the mutual information, and at most log N. 0 for scores of 0, and
    for one sample. The gradient goes to all scores.
    """
    log_shares = scores.float().log_softmax(-1).diagonal(dim1=-2, dim2=-1)
    return math.log(scores.shape[-1]) + log_shares


ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {"jsd": jsd_estimate, "nce": nce_estimate}


class Critic(nn.Module):
    """phi: embeds what a layer gives, position by position.

    Two linear layers beside a linear shortcut that begins as a noisy identity.

    Args:
        channels: of the layer.
        width: U, of the embedding.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, width, bias=False)
        self.hidden_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self.shortcut = nn.Linear(channels, width, bias=False)
        self.norm = nn.LayerNorm(width)
        nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
        with torch.no_grad():
            self.shortcut.weight.diagonal().fill_(1)

    def forward(self, layer: Float[Tensor, "N C *size"]) -> Float[Tensor, "P N U"]:
        positions = layer.flatten(2) if layer.ndim > 2 else layer.unsqueeze(2)
        x = positions.permute(2, 0, 1)
        return self.norm(self.out(self.hidden_norm(self.hidden(x)).relu()) + self.shortcut(x))


class MutualInformation(FeatureLoss):
    """Minus the estimated mutual information of two layers of any shapes.

    The critics learn with the student. The gradient goes to the student's layer and to both
    critics. Scores and estimates are computed in float32.

    Args:
        estimator: "jsd", which does not need many negatives, or "nce".
        width: U, of the critics' embeddings.
        shuffled: each sample of the student is paired with the teacher's of the sample before it in
            the batch, and its true partner is one of the negatives: a control, in which the teacher
            says nothing about the sample.
    """

    field_weight = 1.0  # ours

    def __init__(
        self,
        *,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        estimator: str = "jsd",
        width: int = 128,
        shuffled: bool = False,
    ) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        if estimator not in ESTIMATORS:
            raise ValueError(f"estimator must be {' or '.join(ESTIMATORS)}, got {estimator}")
        if width < 1:
            raise ValueError(f"width must be >= 1, got {width}")
        check_dimensions("mutual information", student_shape, teacher_shape)
        self.estimate = ESTIMATORS[estimator]
        self.shuffled = shuffled
        self.student_critic = Critic(student_shape[0], width)
        self.teacher_critic = Critic(teacher_shape[0], width)

    def forward(self, student: Tensor, teacher: Tensor) -> Float[Tensor, "N"]:
        teacher = teacher.detach()
        if self.shuffled:
            teacher = teacher.roll(1, 0)
        return -self.estimate(self.scores(student, teacher)).mean(0)

    def scores(self, student: Tensor, teacher: Tensor) -> Float[Tensor, "P N N"]:
        """Critic scores: a row for each sample of the teacher, a column for each of the student."""
        if student.ndim == teacher.ndim > 2:
            student, teacher = pool_to_smaller(student, teacher)
        mine, theirs = self.student_critic(student).float(), self.teacher_critic(teacher).float()
        # with autocast the product would be in half precision
        with torch.autocast(mine.device.type, enabled=False):
            return theirs @ mine.mT / math.sqrt(mine.shape[-1])
