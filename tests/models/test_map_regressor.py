import pytest
import torch
from torch import nn

from kd_lightning.models.map_regressor import map_regressor


@pytest.mark.parametrize(
    ("student", "teacher", "first", "kernel"),
    [
        ((3, 8, 8), (5, 8, 8), nn.Conv2d, 1),
        ((3, 8, 8), (5, 4, 4), nn.Conv2d, 3),
        ((3, 7, 7), (5, 4, 4), nn.Conv2d, 3),
        ((3, 4, 4), (5, 8, 8), nn.ConvTranspose2d, 4),
        ((3, 8, 8), (5, 6, 6), nn.Conv2d, 3),
        ((3, 8), (5, 7), nn.Conv1d, 2),
        ((3, 4), (5, 8), nn.ConvTranspose1d, 4),
        ((3, 4, 9), (5, 7, 8), nn.Conv2d, None),
        ((3, 4), (5, 7), nn.Conv1d, 1),
    ],
)
def test_it_has_the_shape_of_the_teacher(
    student: tuple, teacher: tuple, first: type, kernel: int | None
) -> None:
    torch.manual_seed(0)
    regressor = map_regressor(student, teacher)
    made = regressor(torch.randn(2, *student))
    assert made.shape == (2, *teacher)
    assert (made >= 0).all()
    assert (made > 0).any()
    convs = [part for part in regressor.modules() if hasattr(part, "kernel_size")]
    assert type(convs[0]) is first
    assert kernel is None or set(convs[0].kernel_size) == {kernel}
    assert len(convs) == 3
    assert all(conv.bias is None for conv in convs)
