"""Layers for feature maps of series, (B, D, L), and of images, (B, D, H, W)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.losses.feature_loss import CONVS, NORMS, average_pool


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over the samples and positions of vectors or maps. One vector alone has no
    statistics: it is normalized with the running ones.
    """

    def forward(self, x: Float[Tensor, "B D *size"]) -> Float[Tensor, "B D *size"]:
        if x.numel() == x.shape[1]:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
        return super().forward(x.flatten(2) if x.ndim > 2 else x).view(x.shape)


def conv_norm_relu(num_in: int, num_out: int, patch: Sequence[int]) -> nn.Sequential:
    """A convolution of patches that do not overlap, batch norm, ReLU; torch's initialization. The
    convolution has no bias, which the batch norm would remove.

    Args:
        patch: its size, (L) or (H, W), by which the size of the map is divided.
    """
    num_dims = len(patch)
    conv = CONVS[num_dims](num_in, num_out, tuple(patch), tuple(patch), bias=False)
    return nn.Sequential(conv, NORMS[num_dims](num_out), nn.ReLU())


def resize_map(x: Float[Tensor, "B D *size"], size: Sequence[int]) -> Tensor:
    """A feature map of another size, (B, D, *size): averaged where it becomes smaller, interpolated
    with aligned corners where it becomes larger. A map of this size is returned as it is.
    """
    num_dims = x.ndim - 2
    smaller = list(map(min, x.shape[2:], size))
    if list(x.shape[2:]) != smaller:
        x = average_pool(x, smaller)
    if list(size) == smaller:
        return x
    if num_dims == 2:
        return F.interpolate(x, list(size), mode="bilinear", align_corners=True)
    # a series is a map of height 1: the linear mode has no deterministic gradient on a GPU
    map_of_series = x.unsqueeze(2)
    larger = F.interpolate(map_of_series, [1, *size], mode="bilinear", align_corners=True)
    return larger.squeeze(2)
