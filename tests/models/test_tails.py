"""The part of a net after a layer."""

import copy

import pytest
import torch
from helpers import compose
from omegaconf import open_dict
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.layer_outputs import LayerOutputs
from kd_lightning.models.net_stages import net_stages
from kd_lightning.models.tails import tail_after
from kd_lightning.teachers.sources import build_net

IMAGE, SERIES = torch.rand(1, 3, 32, 32), torch.randn(1, 2, 40)
NAMES = [
    "resnet8",
    "wrn_16_2",
    "mobilenetv2_half",
    "fcn",
    "inception_time",
    "resnet18",
    "convnext_atto",
]


def built(name: str) -> tuple[nn.Module, Tensor]:
    x = SERIES if name in ("fcn", "resnet1d", "inception_time") else IMAGE
    cfg = compose("method=supervised", "data=synthetic", f"model@method.students.student={name}")
    with open_dict(cfg):
        cfg.task.num_classes, cfg.task.channels = 5, x.shape[1]
    return build_net(cfg.method.students.student, 0, "student"), x


@pytest.mark.parametrize("name", NAMES)
def test_after_a_stage_it_gives_the_logits_of_the_net(name: str) -> None:
    net, x = built(name)
    x = x.repeat(3, *[1] * (x.ndim - 1))
    for layer in list(net_stages(net, x[:1]))[:-1][:3]:
        with torch.no_grad(), LayerOutputs(net.eval(), [layer]).record() as outputs:
            whole = net(x).logits
        tail = tail_after(net, layer, x[:1])
        assert all(module.training for module in tail.modules())
        torch.testing.assert_close(tail.eval()(outputs[layer]), whole)


@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
def test_it_has_nothing_of_what_runs_before(name: str) -> None:
    net, x = built(name)
    first, *_, last = net_stages(net, x)
    tail = tail_after(net, first, x)
    of_net = {id(p): n for n, p in net.named_parameters()}
    names = {of_net[id(p)] for p in tail.parameters()}
    assert "head.weight" in names
    assert any(name.startswith(last.rpartition(".")[0]) for name in names)
    assert not any(name.startswith((f"{first}.", "trunk.stem", "trunk.conv1")) for name in names)
    assert sum(p.numel() for p in tail.parameters()) < sum(p.numel() for p in net.parameters())


def test_a_copy_of_it_has_weights_of_its_own() -> None:
    net, x = built("resnet8")
    tail = tail_after(net, "trunk.stage1", x)
    copied = copy.deepcopy(tail)
    with torch.no_grad():
        copied.head.weight.zero_()
    assert tail.head.weight.any()
    assert tail.head.weight is net.head.weight


class Skipping(nn.Module):
    """The end of the net reads the input again."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Conv2d(3, 3, 1)
        self.stage2 = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.stage2(self.stage1(x) + x).mean((2, 3))


class Twice(Skipping):
    def forward(self, x: Tensor) -> Tensor:
        return self.stage2(self.stage1(self.stage1(x))).mean((2, 3))


class Looking(Skipping):
    """What it does depends on what it computes."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage1(x)
        return self.stage2(x if x.sum() > 0 else -x).mean((2, 3))


class Remembering(Skipping):
    """A trace keeps the number of this pass."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.stage2(self.stage1(x)).mean((2, 3)) + self.passes


@pytest.mark.parametrize(
    ("trunk", "reason"),
    [
        (Skipping, "what follows it also reads what comes before it"),
        (Twice, "it runs 2 times in a pass"),
        (Looking, "symbolically traced variables cannot be used as inputs to control flow"),
        (Remembering, "it does not compute what the net computes"),
    ],
)
def test_a_net_that_cannot_be_cut_is_a_sentence(trunk: type, reason: str) -> None:
    net = Classifier(trunk=trunk(), head=nn.Linear(4, 2), dropout=0.0)
    with pytest.raises(UserError, match=rf"after its layer trunk.stage1 .*{reason}.*\(model@…=…\)"):
        tail_after(net, "trunk.stage1", IMAGE)
