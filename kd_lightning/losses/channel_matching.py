"""Channel matching: for each channel of a student's layer, a target made of a teacher's channels.

For KCD, Han et al., arXiv 2103.16844: two nets use different channels for the same thing, so the
teacher's are brought into the student's order before the student imitates them. A reconstruction:
the paper's text and code were not at hand.

The channels are compared by what they give for N samples, averaged over the positions (rows).
Dimensions: N samples, D channels of the student, E of the teacher, B batch.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kd_lightning.losses.dist import pearson_correlation
from kd_lightning.losses.feature_loss import (
    FeatureLoss,
    check_dimensions,
    pool_to_smaller,
    pooled,
)
from kd_lightning.losses.logit_standardization import standardize


def channel_correlation(
    student: Float[Tensor, "N D"], teacher: Float[Tensor, "N E"]
) -> Float[Tensor, "D E"]:
    """Pearson's correlation of each pair of channels, in [-1, 1].

    0 for a channel that is constant over the samples. It does not depend on the scales (> 0) and
    the means of the channels.
    """
    return standardize(student, dim=0).T @ standardize(teacher, dim=0) / len(student)


def one_to_one(similarity: Float[Tensor, "D E"]) -> Int[Tensor, "D"]:
    """The teacher's channel for each of the student's, with the greatest sum of similarities.

    No channel of the teacher is used twice. If the student has more channels, each of the teacher's
    is used at most ceil(D / E) times.
    """
    from scipy.optimize import linear_sum_assignment  # costs 0.2 s, rarely needed

    num, others = similarity.shape
    places = similarity.repeat(1, math.ceil(num / others))
    _, chosen = linear_sum_assignment(places.numpy(), maximize=True)
    return torch.from_numpy(chosen) % others


def greedy(similarity: Float[Tensor, "D E"]) -> Int[Tensor, "D"]:
    """For each channel of the student the most similar one of the teacher, which may be used
    several times.
    """
    return similarity.argmax(dim=1)


def ridge_matrix(
    student: Float[Tensor, "N D"], teacher: Float[Tensor, "N E"], ridge: float
) -> Float[Tensor, "D E"]:
    """W that minimizes ``mean_n ||s_n - W t_n||^2 + r ||W||^2``, in closed form.

    Args:
        ridge: r, in units of the teacher's mean square over samples and channels. 0: the W of least
            norm among the best.
    """
    student, teacher = student.double(), teacher.double()
    squares = teacher.T @ teacher / len(teacher)
    strength = ridge * squares.diagonal().mean()
    inverse = torch.linalg.pinv(squares + strength * torch.eye(len(squares)), hermitian=True)
    return (student.T @ teacher / len(teacher) @ inverse).float()


ASSIGNMENTS: dict[str, Callable[[Tensor], Tensor]] = {"one_to_one": one_to_one, "greedy": greedy}
NEARLY_CONSTANT = 1e-3  # a channel's deviation, relative to those of all channels (their RMS)
MATCHINGS = (*ASSIGNMENTS, "learned", "identity", "random")


class MatchedChannels(FeatureLoss):
    """Mean squared difference of the student's layer and the target of its channels.

    Two maps are pooled to the smaller of their sizes, a map beside a vector to a vector. The
    matching is a buffer, which ``match`` fills. Zero when the student gives what its target is. The
    gradient goes to the student alone. Computed in float32.

    Args:
        matching: "one_to_one", "greedy"; "learned": each target is a linear combination of the
            teacher's channels (``ridge_matrix``); the controls "identity": the channel with the
            same number, counted again from 0 where the teacher has fewer, and "random": from the
            default generator, each of the teacher's as seldom as in one_to_one.
        ridge: of "learned".
        standardize: differences are in standard deviations of the target's channel over the
            samples of ``match``; a channel that was constant keeps its unit.
    """

    field_weight = 1.0  # ours
    channels: Tensor
    weights: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        *,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        matching: str = "one_to_one",
        ridge: float = 1e-3,
        standardize: bool = False,
    ) -> None:
        super().__init__(student_shape=student_shape, teacher_shape=teacher_shape)
        check_dimensions("channel matching", student_shape, teacher_shape)
        if matching not in MATCHINGS:
            raise ValueError(f"matching must be one of {', '.join(MATCHINGS)}, got {matching}")
        if not 0 <= ridge < float("inf"):
            raise ValueError(f"ridge must be >= 0, got {ridge}")
        self.matching = matching
        self.ridge = ridge
        num, others = student_shape[0], teacher_shape[0]
        order = torch.randperm if matching == "random" else torch.arange
        blocks = [order(others) for _ in range(math.ceil(num / others))]
        self.register_buffer("channels", torch.cat(blocks)[:num])
        is_learned = matching == "learned"
        self.register_buffer("weights", torch.zeros(num, others) if is_learned else None)
        self.register_buffer("scale", torch.ones(num) if standardize else None)

    @torch.no_grad()
    def match(self, student: Float[Tensor, "N D"], teacher: Float[Tensor, "N E"]) -> float:
        """Matches the channels by their rows, which are on the CPU.

        Returns:
            The mean correlation of the student's channels with their targets.
        """
        if self.matching in ASSIGNMENTS:
            assign = ASSIGNMENTS[self.matching]
            self.channels.copy_(assign(channel_correlation(student, teacher)))
        if self.weights is not None:
            self.weights.copy_(ridge_matrix(student, teacher, self.ridge))
        target = self.target(teacher.to(self.channels.device)).cpu()
        if self.scale is not None:
            deviation = target.std(dim=0, correction=0)
            # one that is nearly constant would outweigh all others
            is_constant = deviation <= NEARLY_CONSTANT * deviation.square().mean().sqrt()
            self.scale.copy_(1 / deviation.masked_fill(is_constant, 1))
        return pearson_correlation(student, target, dim=0).mean().item()

    def target(self, teacher: Float[Tensor, "B E *size"]) -> Float[Tensor, "B D *size"]:
        """What each of the student's channels has to give."""
        if self.weights is None:
            return teacher[:, self.channels]
        with torch.autocast(teacher.device.type, enabled=False):
            return torch.einsum("de,be...->bd...", self.weights, teacher)

    def forward(self, student: Tensor, teacher: Tensor) -> Float[Tensor, "B"]:
        student, teacher = student.float(), teacher.detach().float()
        if student.ndim != teacher.ndim:
            student, teacher = pooled(student), pooled(teacher)
        elif student.ndim > 2:
            student, teacher = pool_to_smaller(student, teacher)
        difference = student - self.target(teacher)
        if self.scale is not None:
            difference = difference * self.scale.view(-1, *[1] * (student.ndim - 2))
        return difference.square().flatten(1).mean(1)
