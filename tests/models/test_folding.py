"""Folding does not change the outputs of a net, and folds only what can be folded."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_lightning.models.cifar import resnet, vgg, wide_resnet
from kd_lightning.models.folding import fold_batch_norms
from kd_lightning.models.time_series import fcn, inception_time, resnet1d


def trained(net: nn.Module) -> nn.Module:
    """``net`` in eval mode, with random statistics and weights of its batch norms."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            for tensor, low in ((module.running_mean, -0.5), (module.running_var, 0.5)):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)
            if module.affine:
                module.weight.data = torch.rand(module.weight.shape, generator=generator) + 0.5
                module.bias.data = torch.rand(module.bias.shape, generator=generator) - 0.5
    return net.eval()


def count(net: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in net.modules())


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        output = net(x)
    return output if isinstance(output, Tensor) else output.logits


IMAGES, SERIES = torch.rand(3, 3, 32, 32), torch.randn(3, 2, 40)
NETS = {
    "resnet": (lambda: resnet(depth=8, widths=[4, 4, 8, 16], num_classes=5, in_chans=3), IMAGES),
    "vgg": (lambda: vgg(widths=[[4], [4, 8]], num_classes=5, in_chans=3), IMAGES),
    "fcn": (
        lambda: fcn(widths=[4, 8, 4], kernels=[8, 5, 3], num_classes=5, in_chans=2), SERIES),
    "resnet1d": (lambda: resnet1d(widths=[4, 8], kernels=[8, 5, 3], num_classes=5, in_chans=2),
                 SERIES),
    "timm resnet": (lambda: timm.create_model("resnet10t", num_classes=5),
                    torch.rand(2, 3, 64, 64)),
    "timm mobilenet": (lambda: timm.create_model("mobilenetv2_035", num_classes=5),
                       torch.rand(2, 3, 64, 64)),
    "timm efficientnet": (lambda: timm.create_model("efficientnet_lite0", num_classes=5),
                          torch.rand(2, 3, 64, 64)),
    "linear": (lambda: nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU()),
               torch.randn(5, 8)),
    "not affine": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4, affine=False)),
                   SERIES),
    "grouped": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3, groups=2), nn.BatchNorm1d(4)), SERIES),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_all_batch_norms_are_folded_and_the_outputs_stay(name: str) -> None:
    make, x = NETS[name]
    torch.manual_seed(0)
    net = trained(make())
    before, norms = outputs(net, x), count(net)
    assert fold_batch_norms(net, x) == norms > 0
    assert count(net) == 0
    torch.testing.assert_close(outputs(net, x), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "x", "num_folded", "num_left"),
    [
        # norms before convolutions: only the second of each block reads one convolution
        (lambda: wide_resnet(depth=10, widen=1, num_classes=5, in_chans=3), IMAGES, 3, 4),
        # norms after four parallel layers; only that of the shortcut reads one layer
        (lambda: inception_time(width=4, depth=3, kernels=[9, 5, 3], num_classes=5, in_chans=2),
         SERIES, 1, 3),
    ],
)  # fmt: skip
def test_a_norm_after_no_layer_or_several_layers_is_not_folded(
    make: Callable[[], nn.Module], x: Tensor, num_folded: int, num_left: int
) -> None:
    torch.manual_seed(0)
    net = trained(make())
    before = outputs(net, x)
    assert fold_batch_norms(net, x) == num_folded
    assert count(net) == num_left
    torch.testing.assert_close(outputs(net, x), before, rtol=1e-4, atol=1e-4)


class NotFoldable(nn.Module):
    """A layer and a norm, used in a way that cannot be folded."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.norm, self.how = nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), how

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.how == "read twice":
            return self.norm(y) + y
        if self.how == "layer runs twice":
            return self.norm(self.conv(y))
        if self.how == "norm runs twice":
            return self.norm(y) + self.norm(x)
        if self.how == "something between":
            return self.norm(torch.relu(y))
        return self.norm(y.transpose(0, 1).transpose(0, 1))


@pytest.mark.parametrize(
    "how", ["read twice", "layer runs twice", "norm runs twice", "something between", "a view"]
)
def test_norms_whose_folding_would_change_the_outputs_stay(how: str) -> None:
    net = trained(NotFoldable(how))
    before = outputs(net, SERIES)
    assert fold_batch_norms(net, SERIES) == 0
    assert torch.equal(outputs(net, SERIES), before)


def test_reading_a_shape_does_not_count() -> None:
    class ReadsShape(NotFoldable):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            assert y.shape[1] == y.size(1) == 2
            return self.norm(y)

    assert fold_batch_norms(trained(ReadsShape("")), SERIES) == 1


def test_a_norm_over_positions_is_not_folded() -> None:
    net = trained(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(3)))
    x = torch.randn(5, 3, 8)
    before = outputs(net, x)
    assert fold_batch_norms(net, x) == 0
    assert torch.equal(outputs(net, x), before)


def test_a_subclass_of_batch_norm_is_not_folded() -> None:
    class Doubled(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    net = trained(nn.Sequential(nn.Conv1d(2, 4, 3), Doubled(4)))
    before = outputs(net, SERIES)
    assert fold_batch_norms(net, SERIES) == 0
    assert torch.equal(outputs(net, SERIES), before)
