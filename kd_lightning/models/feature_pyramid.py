"""Branches on the stages of a net, from its last map down to its first, as in a feature pyramid
(Lin et al. 2017, arXiv 1612.03144). Teacher evolution (arXiv 2110.00329) trains a net with them.

    t_n = lateral_n(s_n)
    u   = up_i(t_{i+1} at the size of s_i)
    t_i = fuse_i([u + lateral_i(s_i), u])
    b_i = mean over positions of head_i(t_i), which has the size and channels of s_n;  z_i = W_i b_i

s_1 … s_n are the maps of the stages. ``lateral``, ``up`` and ``fuse`` are convolutions of size 1
with batch norm and ReLU. ``head`` is two such convolutions, of which the first divides the size.
All have torch's initialization.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kd_lightning.losses.feature_loss import pooled
from kd_lightning.models.layer_outputs import Shape
from kd_lightning.models.map_layers import conv_norm_relu, resize_map
from kd_lightning.models.outputs import ModelOutput


class FeaturePyramid(nn.Module):
    """One branch for each stage but the last.

    Args:
        shapes: of the stages' maps for one sample, (D, L) or (D, H, W), first stage first; two or
            more.
        num_classes: C of the branches' logits.
        width: channels inside the branches; None: those of the last map.
    """

    def __init__(self, shapes: Sequence[Shape], num_classes: int, width: int | None = None) -> None:
        super().__init__()
        *earlier, last = shapes
        width = width or last[0]
        one = [1] * (len(last) - 1)
        self.last = conv_norm_relu(last[0], width, one)
        self.laterals = nn.ModuleList(conv_norm_relu(s[0], width, one) for s in earlier[::-1])
        self.steps = nn.ModuleList(TopDown(width, len(one)) for _ in earlier)
        self.heads = nn.ModuleList(
            PyramidHead(width, shape[1:], last, num_classes) for shape in earlier[::-1]
        )

    def forward(self, maps: Sequence[Float[Tensor, "B D *size"]]) -> list[ModelOutput]:
        """The branches' outputs, that of the last stage but one first.

        Args:
            maps: of all stages, first stage first.
        """
        *earlier, last = maps
        top, outputs = self.last(last), []
        branches = zip(self.laterals, self.steps, self.heads, earlier[::-1], strict=True)
        for lateral, step, head, stage in branches:
            top = step(top, lateral(stage))
            outputs.append(head(top))
        return outputs


class TopDown(nn.Module):
    """One step from a coarse map to a finer one: (B, W, *size) twice -> (B, W, *finer)."""

    def __init__(self, width: int, num_dims: int) -> None:
        super().__init__()
        one = [1] * num_dims
        self.up = conv_norm_relu(width, width, one)
        self.fuse = conv_norm_relu(2 * width, width, one)

    def forward(self, top: Tensor, lateral: Tensor) -> Tensor:
        up = self.up(resize_map(top, lateral.shape[2:]))
        return self.fuse(torch.cat([up + lateral, up], 1))


class PyramidHead(nn.Module):
    """A branch's classifier: (B, W, *size) -> logits (B, C) and features (B, D).

    Args:
        width: W.
        size: of the map.
        last: shape of the net's last map, (D, *size), whose size the map gets, as far as whole
            strides give it.
    """

    def __init__(self, width: int, size: Sequence[int], last: Shape, num_classes: int) -> None:
        super().__init__()
        num_out, *smaller = last
        strides = [max(1, round(a / b)) for a, b in zip(size, smaller, strict=True)]
        self.shrink = conv_norm_relu(width, width, strides)
        self.project = conv_norm_relu(width, num_out, [1] * len(smaller))
        self.head = nn.Linear(num_out, num_classes)

    def forward(self, x: Tensor) -> ModelOutput:
        features = pooled(self.project(self.shrink(x)))
        return ModelOutput(self.head(features), features)
