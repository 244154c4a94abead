import pytest
import torch
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.assemble import (
    CheckedPrepare,
    GlobalAverage,
    build_classifier,
    build_trunk,
)


def test_images_and_series_are_distinguished() -> None:
    images, series = CheckedPrepare(3, 2), CheckedPrepare(3, 1)
    assert images(torch.rand(2, 3, 8, 8)).shape == (2, 3, 8, 8)
    assert series(torch.rand(2, 3, 8)).shape == (2, 3, 8)
    with pytest.raises(UserError, match=r"takes images .*\(2, 3, 8\): choose a net for series"):
        images(torch.rand(2, 3, 8))
    with pytest.raises(UserError, match=r"takes series .*: choose a net for images"):
        series(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_the_memory_layout_of_the_input_does_not_matter(as_bytes: bool) -> None:
    x = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    x, channels_last = (
        x if as_bytes else x / 255 for x in (x, x.to(memory_format=torch.channels_last))
    )
    prepare = CheckedPrepare(3, 2, mean=[0.5] * 3, std=[0.2] * 3)
    assert not channels_last.is_contiguous()
    assert prepare(channels_last).is_contiguous()
    assert torch.equal(prepare(channels_last), prepare(x))


def test_another_number_of_channels_raises_an_error() -> None:
    with pytest.raises(UserError, match="built for 3 channels, got 1"):
        CheckedPrepare(3, None)(torch.rand(2, 1, 8))
    with pytest.raises(UserError, match="one value for each of the 1 channels"):
        CheckedPrepare(1, 2, mean=[0.5] * 3, std=[0.5] * 3)


def test_the_smallest_size_is_checked_after_resizing() -> None:
    with pytest.raises(UserError, match=r"needs a size of 8 or more, got \(4, 4\)"):
        CheckedPrepare(1, 2, min_size=8)(torch.rand(2, 1, 4, 4))
    assert CheckedPrepare(1, 2, min_size=8, size=8)(torch.rand(2, 1, 4, 4)).shape[-1] == 8


def test_global_average_is_the_mean_over_positions() -> None:
    x = torch.arange(12.0).view(1, 2, 2, 3)
    assert GlobalAverage()(x).tolist() == [[2.5, 8.5]]
    assert GlobalAverage()(x.flatten(2)).tolist() == [[2.5, 8.5]]


def test_block_dropout_is_after_every_stage_and_changes_no_name() -> None:
    stages = [nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 1)]
    without, half = build_trunk(stages, 0.0), build_trunk(stages, 0.5)
    assert list(without.state_dict()) == list(half.state_dict())
    rates = [module.p for module in half if isinstance(module, nn.Dropout)]
    assert rates == [0.5, 0.5]
    with pytest.raises(UserError, match="block_dropout"):
        build_trunk(stages, 1.0)


def test_nets_of_this_package_have_no_pretrained_weights() -> None:
    with pytest.raises(UserError, match="no pretrained weights"):
        build_classifier(
            nn.Flatten(), 4, num_dims=None, num_classes=2, in_chans=1, weights="pretrained"
        )
