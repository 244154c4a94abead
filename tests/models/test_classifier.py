"""The input is normalized with given statistics, and images are resized as given."""

import pytest
import torch
from torch.nn import functional as F

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.resizing import Resizing
from kd_lightning.models.assemble import CheckedPrepare
from kd_lightning.models.classifier import Prepare
from kd_lightning.models.perceptron import mlp


@pytest.mark.parametrize("size", [5, 12])
def test_images_are_resized_with_the_given_interpolation(size: int) -> None:
    x = torch.rand(2, 3, 8, 8)
    smooth = {"antialias": True, "align_corners": False}
    for interpolation, expected in (
        ("bilinear", F.interpolate(x, (size, size), mode="bilinear", **smooth)),
        ("bicubic", F.interpolate(x, (size, size), mode="bicubic", **smooth).clamp(0, 1)),
        ("nearest-exact", F.interpolate(x, (size, size), mode="nearest-exact")),
    ):
        assert torch.equal(Prepare(size=size, interpolation=interpolation)(x), expected)
    assert torch.equal(
        Prepare(size=size)(x), F.interpolate(x, (size, size), mode="bilinear", **smooth)
    )


def test_nearest_in_the_record_of_a_net_is_nearest_exact() -> None:
    x = torch.rand(1, 1, 7, 7)
    earlier, now = (Prepare(size=3, interpolation=n) for n in ("nearest", "nearest-exact"))
    assert torch.equal(earlier(x), now(x))
    assert not torch.equal(now(x), F.interpolate(x, (3, 3), mode="nearest"))
    assert torch.equal(now(x), Resizing(3, "squash", interpolation="nearest-exact")(x))


def test_bicubic_values_stay_those_of_images() -> None:
    x = torch.randint(0, 2, (4, 3, 8, 8)).mul(255).to(torch.uint8)
    resized = Prepare(size=20, interpolation="bicubic")(x)
    assert resized.min() == 0
    assert resized.max() == 1


def test_wrong_values_name_their_key() -> None:
    with pytest.raises(UserError, match=r"unknown interpolation 'cubic': .*\(…interpolation=…\)"):
        Prepare(size=4, interpolation="cubic")
    with pytest.raises(UserError, match=r"input_size must be >= 1 or null, got 0 \(…input_size=…"):
        Prepare(size=0)
    with pytest.raises(UserError, match=r"takes series, which are not resized.*\(…input_size=…\)"):
        CheckedPrepare(3, 1, size=8)
    with pytest.raises(UserError, match=r"input_size is for images.*\(…input_size=null\)"):
        Prepare(size=4)(torch.rand(2, 3, 8))


def test_statistics_can_be_replaced() -> None:
    prepare = Prepare([0.5], [0.25])
    prepare.set_statistics([0.0], [2.0])
    assert prepare(torch.ones(1, 1, 2, 2)).unique().tolist() == [0.5]
    assert prepare.state_dict().keys() == {"mean", "std"}
    prepare.set_statistics(None, None)
    assert prepare(torch.ones(1, 1, 2, 2)).unique().tolist() == [1.0]
    with pytest.raises(UserError, match="mean and std must be given together"):
        prepare.set_statistics([0.5], None)


def test_own_nets_resize_too() -> None:
    net = mlp(num_inputs=16, widths=[4], num_classes=2, in_chans=1, input_size=4,
              interpolation="nearest")  # fmt: skip
    assert (net.prepare.size, net.prepare.interpolation) == (4, "nearest-exact")
    assert net(torch.rand(2, 1, 9, 9)).logits.shape == (2, 2)


def test_bytes_are_images_with_two_sides_and_plain_numbers_in_a_series() -> None:
    image = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    series = torch.randint(0, 256, (2, 1, 4), dtype=torch.uint8)
    assert torch.equal(Prepare()(image), image / 255)
    assert torch.equal(Prepare()(series), series.float())


def test_numpys_floats_are_taken_in_the_precision_of_the_net() -> None:
    x = torch.rand(2, 1, 4)
    prepare = Prepare(mean=[0.5], std=[0.2])
    assert torch.equal(prepare(x.double()), prepare(x))
    assert prepare.double()(x.double()).dtype == torch.float64
