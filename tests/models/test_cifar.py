from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from kd_lightning.base.errors import UserError
from kd_lightning.models import cifar
from kd_lightning.models.classifier import Classifier

NARROW, WIDE = [16, 16, 32, 64], [32, 64, 128, 256]
VGG13 = [[64, 64], [128, 128], [256, 256], [512, 512], [512, 512]]

# Numbers of parameters for 100 classes, as published for the zoo (resnet8: by hand).
NETS: dict[str, tuple[Callable[..., Classifier], int]] = {
    "resnet8": (partial(cifar.resnet, depth=8, widths=NARROW), 83_892),
    "resnet20": (partial(cifar.resnet, depth=20, widths=NARROW), 278_324),
    "resnet32": (partial(cifar.resnet, depth=32, widths=NARROW), 472_756),
    "resnet56": (partial(cifar.resnet, depth=56, widths=NARROW), 861_620),
    "resnet110": (partial(cifar.resnet, depth=110, widths=NARROW), 1_736_564),
    "resnet8x4": (partial(cifar.resnet, depth=8, widths=WIDE), 1_233_540),
    "resnet32x4": (partial(cifar.resnet, depth=32, widths=WIDE), 7_433_860),
    "wrn_16_2": (partial(cifar.wide_resnet, depth=16, widen=2), 703_284),
    "wrn_40_1": (partial(cifar.wide_resnet, depth=40, widen=1), 569_780),
    "wrn_40_2": (partial(cifar.wide_resnet, depth=40, widen=2), 2_255_156),
    "vgg8": (partial(cifar.vgg, widths=[[64], [128], [256], [512], [512]]), 3_965_028),
    "vgg13": (partial(cifar.vgg, widths=VGG13), 9_462_180),
    "mobilenetv2_half": (partial(cifar.mobilenetv2, width=0.5, expansion=6), 812_836),
    "shufflenetv1": (partial(cifar.shufflenetv1, groups=3, widths=[24, 240, 480, 960]), 949_258),
    "shufflenetv2": (partial(cifar.shufflenetv2, widths=[24, 116, 232, 464, 1024]), 1_355_528),
}
SMALL = [name for name in NETS if name not in ("resnet56", "resnet110", "resnet32x4", "vgg13")]


@pytest.mark.parametrize("name", NETS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    factory, published = NETS[name]
    with torch.device("meta"):
        net = factory(num_classes=100, in_chans=3)
    assert sum(parameter.numel() for parameter in net.parameters()) == published


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28), (1, 8)])
@pytest.mark.parametrize("name", SMALL)
def test_every_net_takes_images_of_digits_fashion_and_cifar(
    name: str, channels: int, size: int
) -> None:
    torch.manual_seed(0)
    net = NETS[name][0](num_classes=7, in_chans=channels)
    logits, features = net(torch.rand(2, channels, size, size))
    assert logits.shape == (2, 7)
    assert torch.equal(logits, net.head(features))


def test_initial_weights_keep_the_scale_of_the_signal() -> None:
    for name in SMALL:
        torch.manual_seed(0)
        net = NETS[name][0](num_classes=10, in_chans=3).train()
        deviation = net(torch.randn(16, 3, 32, 32)).features.std().item()
        assert 0.05 < deviation < 20, (name, deviation)


def test_the_shortcut_of_a_wide_block_gets_the_activated_input() -> None:
    block = cifar.PreActivationBlock(2, 4, 2).eval()
    x = torch.randn(1, 2, 4, 4)
    with torch.no_grad():
        block.main[-1].weight.zero_()
        # with a main path of zero only the shortcut remains
        expected = block.shortcut(block.activate(x))
        assert torch.equal(block(x), expected)
        same = cifar.PreActivationBlock(2, 2, 1).eval()
        same.main[-1].weight.zero_()
        assert torch.equal(same(x), x)


def test_a_shuffle_unit_keeps_half_of_its_channels() -> None:
    unit = cifar.ShuffleV2Unit(4, 4, 1).eval()
    x = torch.randn(1, 4, 3, 3)
    out = unit(x)
    # the two halves are interleaved: the kept half is at the even positions
    assert torch.equal(out[:, ::2], x[:, :2])
    assert not torch.equal(out[:, 1::2], x[:, 2:])


def test_a_shuffle_unit_of_stride_two_keeps_the_averaged_input() -> None:
    unit = cifar.ShuffleUnit(4, 16, 2, groups=3, first=True).eval()
    x = torch.rand(1, 4, 6, 6)
    assert torch.equal(unit(x)[:, 12:], torch.nn.functional.avg_pool2d(x, 3, 2, 1))


def test_block_dropout_makes_training_passes_differ() -> None:
    torch.manual_seed(0)
    for name in ("resnet8", "wrn_16_2", "vgg8", "mobilenetv2_half", "shufflenetv2"):
        net = NETS[name][0](num_classes=4, in_chans=1, block_dropout=0.5).eval()
        x = torch.rand(2, 1, 8, 8)
        assert torch.equal(net(x).logits, net(x).logits)
        for module in net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.train()
        assert not torch.equal(net(x).features, net(x).features), name


def test_invalid_depths_raise_an_error() -> None:
    with pytest.raises(UserError, match=r"depth must be 6n \+ 2 .* got 18 \(…depth=…\)"):
        cifar.resnet(depth=18, widths=NARROW, num_classes=10, in_chans=3)
    with pytest.raises(UserError, match=r"depth must be 6n \+ 4 .* got 4"):
        cifar.wide_resnet(depth=4, widen=1, num_classes=10, in_chans=3)


def test_images_that_are_too_small_for_the_pooling_raise_an_error() -> None:
    net = cifar.vgg(widths=[[2]] * 5, num_classes=2, in_chans=1)
    with pytest.raises(UserError, match="needs a size of 8"):
        net(torch.rand(2, 1, 7, 7))


def test_a_net_loads_its_weights_from_a_file(tmp_path: Path) -> None:
    factory = partial(NETS["resnet8"][0], num_classes=4, in_chans=1)
    source = factory(mean=[0.3], std=[0.2])
    torch.save(source.state_dict(), tmp_path / "net.pt")
    target = factory(mean=[0.9], std=[0.9], weights=str(tmp_path / "net.pt"))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(source.eval()(x).logits, target.eval()(x).logits)
