"""A regressor from one feature map to the shape of another."""

from collections.abc import Sequence

from torch import nn

from kd_lightning.models.map_layers import CONVS, NORMS

TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}


def map_regressor(student_shape: Sequence[int], teacher_shape: Sequence[int]) -> nn.Sequential:
    """A convolution to the size of the teacher's map, then two of 3 cells. Batch norm and ReLU
    follow each of them, which therefore have no bias.

    Args:
        student_shape, teacher_shape: (D, *size) with as many dimensions.
    """
    num_dims, width = len(teacher_shape) - 1, teacher_shape[0]
    layers = [resizing(student_shape, teacher_shape)]
    for _ in range(2):
        layers += [NORMS[num_dims](width), nn.ReLU()]
        layers.append(CONVS[num_dims](width, width, 3, padding=1, bias=False))
    return nn.Sequential(*layers, NORMS[num_dims](width), nn.ReLU())


def resizing(student_shape: Sequence[int], teacher_shape: Sequence[int]) -> nn.Module:
    """Half the size: 3 cells with stride 2. Twice: 4 cells, transposed, with stride 2. Smaller
    otherwise: as many cells as there are too many, and one. Larger otherwise: repeated cells.
    """
    (num_in, *size), (num_out, *wanted) = student_shape, teacher_shape
    conv, transposed = CONVS[len(size)], TRANSPOSED[len(size)]
    if all((n + 1) // 2 == m for n, m in zip(size, wanted, strict=True)) and size != wanted:
        return conv(num_in, num_out, 3, stride=2, padding=1, bias=False)
    if all(2 * n == m for n, m in zip(size, wanted, strict=True)):
        return transposed(num_in, num_out, 4, stride=2, padding=1, bias=False)
    kernel = [max(n - m, 0) + 1 for n, m in zip(size, wanted, strict=True)]
    shrink = conv(num_in, num_out, kernel, bias=False)
    if all(n >= m for n, m in zip(size, wanted, strict=True)):
        return shrink
    return nn.Sequential(shrink, nn.Upsample(tuple(wanted)))
