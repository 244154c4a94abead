"""Layers for feature maps of series and of images."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.models.map_layers import BatchNorm, conv_norm_relu, resize_map


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("size", "patch", "result"), [((12,), (3,), (4,)), ((8, 6), (2, 3), (4, 2))]
)
def test_a_convolution_divides_the_size_by_its_patch(
    size: tuple, patch: tuple, result: tuple
) -> None:
    layer = conv_norm_relu(3, 5, patch)
    output = layer(normal(4, 3, *size))
    assert output.shape == (4, 5, *result)
    assert (output >= 0).all()
    assert layer[0].bias is None


@pytest.mark.parametrize("size", [(), (1,), (1, 1)])
def test_one_vector_is_normalized_by_the_running_statistics(size: tuple) -> None:
    norm = BatchNorm(4)
    norm(normal(32, 4, *size) + 3)
    x = normal(1, 4, *size)
    torch.testing.assert_close(norm(x), norm.eval()(x))


def test_a_map_of_the_size_stays_as_it_is() -> None:
    x = normal(2, 3, 4, 4)
    assert resize_map(x, (4, 4)) is x


def test_a_map_is_interpolated_with_aligned_corners_where_it_grows() -> None:
    x = torch.tensor([[[0.0, 3.0]]])
    assert torch.allclose(resize_map(x, (4,)), torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]))
    image = normal(2, 3, 4, 4)
    expected = F.interpolate(image, (8, 8), mode="bilinear", align_corners=True)
    assert torch.equal(resize_map(image, (8, 8)), expected)


def test_a_map_is_averaged_where_it_shrinks() -> None:
    x = torch.tensor([[[1.0, 3.0, 5.0, 7.0]]])
    assert torch.equal(resize_map(x, (2,)), torch.tensor([[[2.0, 6.0]]]))
    assert resize_map(normal(2, 3, 8, 2), (4, 4)).shape == (2, 3, 4, 4)
