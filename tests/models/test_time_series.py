from collections.abc import Callable
from functools import partial

import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.models import time_series
from kd_lightning.models.classifier import Classifier

NETS: dict[str, Callable[..., Classifier]] = {
    "fcn": partial(time_series.fcn, widths=[128, 256, 128], kernels=[8, 5, 3]),
    "resnet1d": partial(time_series.resnet1d, widths=[64, 128, 128], kernels=[8, 5, 3]),
    "inception_time": partial(time_series.inception_time, width=32, depth=6, kernels=[40, 20, 10]),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("channels", "length"), [(1, 1), (3, 64), (12, 29)])
def test_any_channels_and_any_length(name: str, channels: int, length: int) -> None:
    net = NETS[name](num_classes=5, in_chans=channels).eval()
    logits, features = net(torch.randn(2, channels, length))
    assert logits.shape == (2, 5)
    assert torch.equal(logits, net.head(features))


def test_convolution_weights_count_as_in_the_papers() -> None:
    """Computed by hand from the figures of the papers, for one channel and two classes."""

    def count(net: Classifier) -> int:
        return sum(m.weight.numel() for m in net.modules() if isinstance(m, torch.nn.Conv1d))

    counts = {name: count(NETS[name](num_classes=2, in_chans=1)) for name in NETS}
    assert counts["fcn"] == 8 * 128 + 5 * 128 * 256 + 3 * 256 * 128
    block = lambda ins, width: 8 * ins * width + (5 + 3) * width * width  # noqa: E731
    assert counts["resnet1d"] == (block(1, 64) + 64) + (block(64, 128) + 64 * 128) + block(128, 128)
    first = 70 * 32 + 32  # no bottleneck on a single channel
    other = 128 * 32 + 70 * 32 * 32 + 128 * 32
    assert counts["inception_time"] == first + 5 * other + 128 + 128 * 128


def test_padding_keeps_the_length_and_is_longer_at_the_end_for_even_kernels() -> None:
    conv = time_series.SamePaddingConv(1, 1, 4)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
    # output t depends on t-1 .. t+2, so an impulse at 3 is in the outputs 1 .. 4, in reverse order
    impulse = torch.zeros(1, 1, 7)
    impulse[0, 0, 3] = 1
    assert conv(impulse)[0, 0].tolist() == [0, 4, 3, 2, 1, 0, 0]


def test_statistics_are_per_channel() -> None:
    net = NETS["fcn"](num_classes=2, in_chans=2, mean=[1.0, 2.0], std=[2.0, 4.0])
    x = torch.tensor([[[1.0, 3.0], [2.0, 6.0]]])
    assert net.prepare(x).tolist() == [[[0.0, 1.0], [0.0, 1.0]]]


@pytest.mark.parametrize("name", NETS)
def test_block_dropout_makes_passes_differ(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name](num_classes=2, in_chans=1, block_dropout=0.5).eval()
    x = torch.randn(2, 1, 16)
    assert torch.equal(net(x).logits, net(x).logits)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.train()
    assert not torch.equal(net(x).features, net(x).features)


def test_invalid_arguments_raise_an_error() -> None:
    with pytest.raises(UserError, match="multiple of 3, got 4"):
        time_series.inception_time(width=4, depth=4, kernels=[4], num_classes=2, in_chans=1)
    with pytest.raises(UserError, match="widths and kernels must have the same length"):
        time_series.fcn(widths=[4, 4], kernels=[8], num_classes=2, in_chans=1)


def test_images_raise_an_error() -> None:
    with pytest.raises(UserError, match="takes series"):
        NETS["fcn"](num_classes=2, in_chans=1)(torch.rand(2, 1, 8, 8))
