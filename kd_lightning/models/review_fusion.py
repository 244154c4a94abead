"""The fusion of a student's stages in knowledge review, Chen et al., arXiv 2104.09044.

From the last stage to the first: the map of a stage and the fusion of all later ones are added
with attention weights, and a regression of the sum predicts the teacher's map of this stage. So
early stages of the teacher also teach late stages of the student, through the way from late to
early. Layers, sizes and initial values are as released.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.models.layer_outputs import Shape
from kd_lightning.models.map_layers import CONVS, BatchNorm

MAX_WIDTH = 512


class AttentionFusion(nn.Module):
    """Attention based fusion (ABF): the map of a stage, and the fusion of the later stages.

    Args:
        num_in, width, num_out: channels of the stage's map, of the fusion, of the teacher's map.
        num_dims: 1 for series, 2 for images.
        has_later: whether a fusion of later stages comes in.
    """

    def __init__(
        self, num_in: int, width: int, num_out: int, num_dims: int, *, has_later: bool
    ) -> None:
        super().__init__()
        conv = CONVS[num_dims]
        self.reduce = nn.Sequential(conv(num_in, width, 1, bias=False), BatchNorm(width))
        self.attention = conv(2 * width, 2, 1) if has_later else None
        predict = conv(width, num_out, 3, padding=1, bias=False)
        self.predict = nn.Sequential(predict, BatchNorm(num_out))
        for layer in (self.reduce[0], predict):
            nn.init.kaiming_uniform_(layer.weight, a=1)

    def forward(
        self, x: Tensor, later: Tensor | None, size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The fusion (B, width, *size), and the prediction of the teacher's map of this size. A
        fusion becomes larger by repeated cells and smaller by left out ones.
        """
        fused = self.reduce(x)
        if self.attention is not None:
            later = F.interpolate(later, fused.shape[2:])
            own, others = self.attention(torch.cat([fused, later], 1)).sigmoid().chunk(2, dim=1)
            fused = own * fused + others * later
        fused = F.interpolate(fused, size)
        return fused, self.predict(fused)


class ReviewFusion(nn.Module):
    """The student's maps, from the first stage to the last -> predictions of the teacher's maps.

    Args:
        student_shapes, teacher_shapes: of the paired stages' maps for one sample, (D, L) or
            (D, H, W).
        width: channels of the fusions; None: those of the student's last map, 512 at most.
        review: whether a stage also gets the fusion of the later ones.
    """

    def __init__(
        self,
        student_shapes: Sequence[Shape],
        teacher_shapes: Sequence[Shape],
        width: int | None = None,
        *,
        review: bool = True,
    ) -> None:
        super().__init__()
        width = width or min(MAX_WIDTH, student_shapes[-1][0])
        last = len(student_shapes) - 1
        self.sizes = [shape[1:] for shape in teacher_shapes]
        self.fusions = nn.ModuleList(
            AttentionFusion(
                mine[0], width, theirs[0], len(mine) - 1, has_later=review and number < last
            )
            for number, (mine, theirs) in enumerate(
                zip(student_shapes, teacher_shapes, strict=True)
            )
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One prediction for each stage, in the teacher's sizes."""
        predictions, later = [], None
        for fusion, x, size in list(zip(self.fusions, maps, self.sizes, strict=True))[::-1]:
            later, predicted = fusion(x, later, size)
            predictions.append(predicted)
        return predictions[::-1]
