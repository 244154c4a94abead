"""The nets and samples of the tests of exports, and a student as ``kd_lightning.load`` gives it."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_lightning.exports.graph import Graph, build_graph
from kd_lightning.exports.parity import CheckedSamples
from kd_lightning.models.cifar import resnet
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.time_series import fcn
from kd_lightning.models.timm_nets import timm_classifier

SHAPES = {"timm": (3, 40, 40), "images": (3, 16, 16), "series": (2, 30)}


class Wrapped(nn.Module):
    """Samples -> logits."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).logits


def build(kind: str) -> Classifier:
    """A net of timm whose images are made smaller, an own one of images, an own one of series."""
    torch.manual_seed(0)
    statistics = {"mean": [0.3, 0.4, 0.5], "std": [0.2, 0.3, 0.4]}
    if kind == "timm":
        net = timm_classifier("test_resnet", num_classes=5, in_chans=3, input_size=32, **statistics)
    elif kind == "images":
        net = resnet(depth=8, widths=[8, 16, 32, 64], num_classes=5, in_chans=3, **statistics)
    else:
        net = fcn(widths=[8, 8], kernels=[4, 3], num_classes=5, in_chans=2, mean=[1, 2], std=[3, 4])
    for norm in [module for module in net.modules() if isinstance(module, _BatchNorm)]:
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 2.0)
    net.head.weight.data.mul_(5)  # else all probabilities are near 1 / C, and so are equal
    return net.eval()


def graph_of(kind: str, preprocessing: str = "inside") -> Graph:
    return build_graph(Wrapped(build(kind)), SHAPES[kind], preprocessing)


def samples_of(kind: str, count: int = 40) -> CheckedSamples:
    generator = torch.Generator().manual_seed(1)
    size = (count, *SHAPES[kind])
    if kind == "series":
        x = torch.randn(size, generator=generator)
    else:
        x = torch.randint(256, size, generator=generator, dtype=torch.uint8)
    return CheckedSamples(x, torch.arange(count) % 5, "made up")
