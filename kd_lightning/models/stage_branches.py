"""Branches at the stages of one net that end with the last stages of another one.

Learning student-friendly teachers (arXiv 2102.07650): the map of a teacher's stage goes through a
convolution of size 1 with batch norm and ReLU, and then through what follows the corresponding
stage in the student's net.
"""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from kd_lightning.losses.feature_loss import pooled
from kd_lightning.models.layer_outputs import Shape
from kd_lightning.models.map_layers import conv_norm_relu, resize_map
from kd_lightning.models.tails import tail_after


def stage_pairs(stages: Mapping[str, Shape], others: Mapping[str, Shape]) -> list[tuple[str, str]]:
    """Which stage of a net corresponds to which stage of another one, early stages first.

    The last stage of each net has no partner. Stages correspond if their maps have the same size;
    of several stages with one size the last goes with the last, the one before it with the one
    before it, and so on. If no two sizes agree, stages correspond by their position from the end.

    Args:
        stages, others: as ``net_stages`` gives them.
    """
    mine, theirs = (list(net.items())[:-1][::-1] for net in (stages, others))
    pairs = []
    for name, shape in mine:
        taken = {other for _, other in pairs}
        same = (n for n, other in theirs if other[1:] == shape[1:] and n not in taken)
        if (partner := next(same, None)) is not None:
            pairs.append((name, partner))
    if not pairs:
        pairs = [(name, other) for (name, _), (other, _) in zip(mine, theirs, strict=False)]
    return pairs[::-1]


class StudentBranch(nn.Module):
    """A feature map (B, D, *size) -> logits (B, C), by the tail of another net.

    Args:
        shape: of the map for one sample.
        layer: of the other net, after which its tail begins.
        layer_shape: of the layer's output for one sample.
        build: makes the other net, with new random weights.
        example: one sample that the other net takes.

    Raises:
        UserError: the other net cannot be cut at that layer.
    """

    def __init__(
        self,
        shape: Shape,
        layer: str,
        layer_shape: Shape,
        build: Callable[[], nn.Module],
        example: Float[Tensor, "1 C *size"],
    ) -> None:
        super().__init__()
        self.size = layer_shape[1:]
        self.transform = conv_norm_relu(shape[0], layer_shape[0], [1] * len(self.size))
        self.tail = tail_after(build(), layer, example)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(resize_map(self.transform(x), self.size))


class LinearBranch(nn.Module):
    """A feature map (B, D, *size) -> logits (B, C), by its mean and a linear layer."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(shape[0], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(pooled(x))
