import pytest
import torch
from torch import Tensor

from kd_lightning.models.areas import (
    AreaMaps,
    AreaModule,
    area_distance,
    area_mask,
    class_logits,
)


def maps_of(heat: Tensor, size: float | tuple = 1.0, offset: float | tuple = 0.0) -> AreaMaps:
    """One sample with the same size and offset at all cells."""
    shape = heat.shape[2:]

    def everywhere(value: float | tuple) -> Tensor:
        values = torch.tensor(value).expand(len(shape))
        return values.view(1, -1, *[1] * len(shape)).expand(len(heat), -1, *shape)

    return AreaMaps(heat, everywhere(size), everywhere(offset))


def peaks(shape: tuple, *places: tuple) -> Tensor:
    heat = torch.full((1, *shape), -5.0)
    for height, place in enumerate(reversed(places)):
        heat[(0, *place)] = float(height)
    return heat


def cells(mask: Tensor) -> list[list[int]]:
    return mask[0, 0].int().tolist()


def test_an_area_is_a_box_around_its_shifted_centre() -> None:
    heat = peaks((1, 4, 5), (0, 1, 2))
    mask = area_mask(maps_of(heat, size=(1.0, 2.0), offset=(1.0, 0.0)), 1)
    # rows 2 - 0.5 to 2 + 0.5 (halves are rounded to even), columns 1 to 3
    assert cells(mask) == [[0] * 5, [0] * 5, [0, 1, 1, 1, 0], [0] * 5]
    series = area_mask(maps_of(peaks((1, 6), (0, 4)), size=2.0, offset=-1.0), 1)
    assert series[0, 0].int().tolist() == [0, 0, 1, 1, 1, 0]


def test_an_area_is_cut_off_at_the_border_and_has_one_cell_at_least() -> None:
    heat = peaks((1, 3, 3), (0, 0, 0))
    assert cells(area_mask(maps_of(heat, size=2.0), 1)) == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert cells(area_mask(maps_of(heat, size=1e-6), 1)) == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    far = maps_of(heat, size=1e-6, offset=-9.0)
    assert cells(area_mask(far, 1)) == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert area_mask(maps_of(heat, size=100.0), 1).all()


def test_areas_are_the_highest_local_maxima_of_all_classes() -> None:
    heat = peaks((2, 1, 7), (0, 0, 1), (0, 0, 2), (1, 0, 6))  # the second is beside the first
    assert cells(area_mask(maps_of(heat, size=0.1), 2)) == [[0, 1, 0, 0, 0, 0, 1]]
    assert cells(area_mask(maps_of(heat, size=0.1), 1)) == [[0, 1, 0, 0, 0, 0, 0]]


def test_areas_that_overlap_count_once_and_missing_ones_not() -> None:
    heat = torch.tensor([[[[0.0, 1.0, 2.0, 3.0, 4.0]]]])  # one local maximum
    mask = area_mask(maps_of(heat, size=0.1), 5)
    assert mask.dtype == torch.bool
    assert cells(mask) == [[0, 0, 0, 0, 1]]
    twice = area_mask(maps_of(peaks((2, 1, 5), (0, 0, 1), (1, 0, 3)), size=2.0), 2)
    assert cells(twice) == [[1, 1, 1, 1, 1]]
    assert area_mask(maps_of(torch.zeros(1, 3, 2, 2)), 99).shape == (1, 1, 2, 2)


def test_distance_is_the_mean_over_heat_sizes_and_offsets() -> None:
    a, b = maps_of(torch.zeros(1, 3, 2), size=1.0), maps_of(torch.zeros(1, 3, 2), size=4.0)
    torch.testing.assert_close(area_distance(a, b), torch.tensor([9.0 / 5]))
    hot = maps_of(torch.full((1, 3, 2), 100.0), size=1.0)
    torch.testing.assert_close(area_distance(a, hot), torch.tensor([3 * 0.25 / 5]))
    assert area_distance(a, a) == 0


def test_class_logits_are_the_highest_heat() -> None:
    heat = peaks((3, 2, 2), (1, 0, 1), (2, 1, 1))
    assert class_logits(maps_of(heat)).tolist() == [[-5.0, 1.0, 0.0]]


@pytest.mark.parametrize("size", [(8, 4), (12,)])
def test_the_module_starts_with_areas_of_a_quarter_of_each_side(size: tuple) -> None:
    torch.manual_seed(0)
    maps = AreaModule((6, *size), num_classes=3)(torch.zeros(2, 6, *size))
    assert [part.shape for part in maps] == [(2, c, *size) for c in (3, len(size), len(size))]
    mean = maps.size.flatten(2).mean((0, 2))
    torch.testing.assert_close(mean, torch.tensor(size) / 4, atol=0.3, rtol=0)
    assert (maps.size > 0).all()
    assert not area_mask(maps, 2).requires_grad
