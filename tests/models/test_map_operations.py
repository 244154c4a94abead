import pytest
import torch
from torch import Tensor

from kd_lightning.models.map_operations import (
    OF_IMAGES_ALONE,
    RANGES,
    apply_operations,
    operations_of,
)

IMAGES, SERIES = (3, 6, 7, 11), (3, 6, 11)


def maps(*shape: int) -> Tensor:
    return 1 + torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def applied(x: Tensor, **strengths: float) -> Tensor:
    torch.manual_seed(0)
    return apply_operations(x, {n: torch.full((len(x),), s) for n, s in strengths.items()})


@pytest.mark.parametrize("shape", [IMAGES, SERIES])
def test_at_strength_zero_each_operation_is_the_identity(shape: tuple) -> None:
    x = maps(*shape)
    for name in RANGES:
        assert torch.equal(applied(x, **{name: 0.0}), x)


@pytest.mark.parametrize("shape", [IMAGES, SERIES])
def test_every_operation_of_a_kind_of_maps_changes_them(shape: tuple) -> None:
    x = maps(*shape)
    for name in operations_of(len(shape) - 2):
        assert not torch.equal(applied(x, **{name: RANGES[name][1]}), x), name
    assert set(operations_of(2)) == set(RANGES)
    assert set(operations_of(1)) == set(RANGES) - OF_IMAGES_ALONE


def test_each_sample_has_its_own_strength() -> None:
    x = maps(*IMAGES)
    strengths = {name: torch.tensor([0.0, high, 0.0]) for name, (_, high) in RANGES.items()}
    changed = (apply_operations(x, strengths) != x).flatten(1).any(1)
    assert changed.tolist() == [False, True, False]


def test_shifts_are_shares_of_the_map_and_bring_zeros_in() -> None:
    x = torch.arange(1.0, 21).view(1, 1, 4, 5)
    right, down = applied(x, translate_x=0.2), applied(x, translate_y=-0.25)
    torch.testing.assert_close(right[..., :-1], x[..., 1:])
    torch.testing.assert_close(down[..., 1:, :], x[..., :-1, :])
    assert right[..., -1].eq(0).all()
    assert down[..., 0, :].eq(0).all()
    series = applied(torch.arange(1.0, 11).view(1, 1, 10), translate_x=0.3)
    assert series.flatten().round().tolist() == [4, 5, 6, 7, 8, 9, 10, 0, 0, 0]


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
def test_a_rotation_turns_about_the_centre_whatever_the_sides(size: tuple) -> None:
    x = maps(2, 3, *size)
    torch.testing.assert_close(applied(x, rotate=180.0), x.flip(2, 3), atol=1e-5, rtol=0)
    turned = applied(maps(2, 3, 5, 5), rotate=90.0)
    torch.testing.assert_close(turned, maps(2, 3, 5, 5).rot90(1, (2, 3)), atol=1e-5, rtol=0)
    wide = torch.zeros(1, 1, 5, 9)
    wide[..., 2, 2:7] = 1  # a line along the width becomes one along the height
    tall = applied(wide, rotate=90.0)
    assert tall[..., :, 4].round().flatten().tolist() == [1] * 5
    assert tall.sum() == pytest.approx(5, abs=1e-3)


def test_a_shear_moves_rows_by_their_distance_from_the_centre() -> None:
    x = torch.zeros(1, 1, 5, 9)
    x[..., 4] = 1
    sheared = applied(x, shear_x=1.0)
    expected = torch.eye(5, 9).roll(2, 1).flip(0)
    torch.testing.assert_close(sheared[0, 0], expected, atol=1e-5, rtol=0)
    along_y = applied(x.transpose(2, 3), shear_y=1.0)
    torch.testing.assert_close(along_y[0, 0], expected.T, atol=1e-5, rtol=0)


def test_cutout_is_one_box_of_all_channels_with_its_side_a_share_of_the_maps() -> None:
    x = torch.ones(400, 2, 10, 10)
    cut = applied(x, cutout=0.4) == 0
    assert torch.equal(cut[:, 0], cut[:, 1])
    rows, columns = cut[:, 0].any(2).sum(1), cut[:, 0].any(1).sum(1)
    assert torch.equal(cut[:, 0].sum((1, 2)), rows * columns)  # a box
    assert rows.max() <= 4
    assert rows.float().mean() > 3  # less than 4: boxes are cut off at the border
    series = applied(torch.ones(400, 2, 10), cutout=0.4)[:, 0] == 0
    assert series.any(1).all()
    assert series.sum(1).max() <= 4


def test_noise_is_relative_to_the_deviation_of_the_map() -> None:
    x = torch.randn(2, 50, 20, 20) * torch.tensor([1.0, 10.0]).view(2, 1, 1, 1)
    noise = (applied(x, noise=0.1) - x).flatten(1).std(1)
    torch.testing.assert_close(noise, 0.1 * x.flatten(1).std(1), rtol=0.03, atol=0)


def test_a_shuffle_permutes_a_share_of_the_channels() -> None:
    x = torch.arange(1000.0).view(1, 1000, 1).expand(4, 1000, 6).contiguous()
    for share in (0.3, 1.0):
        shuffled = applied(x, channel_shuffle=share)
        assert torch.equal(shuffled.sort(1).values, x)  # every channel once
        assert (shuffled == shuffled[..., :1]).all()  # whole channels
        moved = (shuffled != x).float().mean()
        assert moved == pytest.approx(share, abs=0.05)


def test_dropped_channels_are_zero_and_the_others_as_they_were() -> None:
    x = maps(4, 1000, 3)
    dropped = applied(x, channel_drop=0.3)
    gone = (dropped == 0).all(2)
    assert gone.float().mean() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(dropped[~gone], x[~gone])
