"""Folded nets answer as before, and nothing is folded that must not be."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_lightning.models.cifar import resnet, vgg, wide_resnet
from kd_lightning.models.folding import fold_batch_norms
from kd_lightning.models.time_series import fcn, inception_time, resnet1d


def used(net: nn.Module) -> nn.Module:
    """``net`` with batch norms that do something, in eval mode."""
    luck = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            for tensor, low in ((module.running_mean, -0.5), (module.running_var, 0.5)):
                tensor.copy_(torch.rand(tensor.shape, generator=luck) + low)
            if module.affine:
                module.weight.data = torch.rand(module.weight.shape, generator=luck) + 0.5
                module.bias.data = torch.rand(module.bias.shape, generator=luck) - 0.5
    return net.eval()


def count(net: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in net.modules())


def answers(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        given = net(x)
    return given if isinstance(given, Tensor) else given.logits


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
def test_all_batch_norms_go_and_the_answers_stay(name: str) -> None:
    make, x = NETS[name]
    torch.manual_seed(0)
    net = used(make())
    before, norms = answers(net, x), count(net)
    assert fold_batch_norms(net, x) == norms > 0
    assert count(net) == 0
    torch.testing.assert_close(answers(net, x), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "x", "folded", "left"),
    [
        # before each convolution: only the second of a block follows one alone
        (lambda: wide_resnet(depth=10, widen=1, num_classes=5, in_chans=3), IMAGES, 3, 4),
        # after four layers side by side; a shortcut's has its own
        (lambda: inception_time(width=4, depth=3, kernels=[9, 5, 3], num_classes=5, in_chans=2),
         SERIES, 1, 3),
    ],
)  # fmt: skip
def test_a_norm_of_no_layer_or_of_several_stays(
    make: Callable[[], nn.Module], x: Tensor, folded: int, left: int
) -> None:
    torch.manual_seed(0)
    net = used(make())
    before = answers(net, x)
    assert fold_batch_norms(net, x) == folded
    assert count(net) == left
    torch.testing.assert_close(answers(net, x), before, rtol=1e-4, atol=1e-4)


class Odd(nn.Module):
    """A layer and a norm, in ways that cannot be folded."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.norm, self.how = nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), how

    def forward(self, x: Tensor) -> Tensor:
        given = self.conv(x)
        if self.how == "read twice":
            return self.norm(given) + given
        if self.how == "layer runs twice":
            return self.norm(self.conv(given))
        if self.how == "norm runs twice":
            return self.norm(given) + self.norm(x)
        if self.how == "something between":
            return self.norm(torch.relu(given))
        return self.norm(given.transpose(0, 1).transpose(0, 1))


@pytest.mark.parametrize(
    "how", ["read twice", "layer runs twice", "norm runs twice", "something between", "a view"]
)
def test_what_would_change_the_answers_is_left_alone(how: str) -> None:
    net = used(Odd(how))
    before = answers(net, SERIES)
    assert fold_batch_norms(net, SERIES) == 0
    assert torch.equal(answers(net, SERIES), before)


def test_a_look_at_a_shape_does_not_count() -> None:
    class Looking(Odd):
        def forward(self, x: Tensor) -> Tensor:
            given = self.conv(x)
            assert given.shape[1] == given.size(1) == 2
            return self.norm(given)

    assert fold_batch_norms(used(Looking("")), SERIES) == 1


def test_a_norm_over_positions_is_left_alone() -> None:
    net = used(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(3)))
    x = torch.randn(5, 3, 8)
    before = answers(net, x)
    assert fold_batch_norms(net, x) == 0
    assert torch.equal(answers(net, x), before)


def test_a_norm_of_another_kind_is_left_alone() -> None:
    class Shouting(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    net = used(nn.Sequential(nn.Conv1d(2, 4, 3), Shouting(4)))
    before = answers(net, SERIES)
    assert fold_batch_norms(net, SERIES) == 0
    assert torch.equal(answers(net, SERIES), before)
