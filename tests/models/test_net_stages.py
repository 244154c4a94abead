"""The stages of a net are found without a name from a person."""

import pytest
import torch
from helpers import compose
from omegaconf import open_dict
from torch import Tensor, nn

from kd_lightning.models.classifier import Classifier
from kd_lightning.models.layer_outputs import LayerOutputs
from kd_lightning.models.net_stages import last_map, net_stages
from kd_lightning.teachers.sources import build_net

IMAGE, SERIES = torch.rand(1, 3, 32, 32), torch.randn(1, 2, 40)
POOLED = {  # whose features are the mean of their last map
    "resnet8": ["trunk.stage1", "trunk.stage2", "trunk.dropout3"],
    "wrn_16_2": ["trunk.stage1", "trunk.stage2", "trunk.tail"],
    "vgg8": [*(f"trunk.stage{n}" for n in range(1, 5)), "trunk.dropout5"],
    "mobilenetv2_half": [*(f"trunk.stage{n}" for n in range(1, 7)), "trunk.tail"],
    "fcn": ["trunk.stage1", "trunk.stage2", "trunk.dropout3"],
    "inception_time": ["trunk.stage1", "trunk.dropout2"],
    "resnet18": ["trunk.layer1", "trunk.layer2", "trunk.layer3", "trunk.layer4"],
    "efficientnet_lite0": [*(f"trunk.blocks.{n}" for n in (0, 1, 2, 4)), "trunk.bn2"],
}
NOT_POOLED = {  # another layer follows the pooling
    "mobilenetv3_small": ["trunk.bn1", *(f"trunk.blocks.{n}" for n in (0, 1, 3)), "trunk.blocks"],
    "convnext_atto": [*(f"trunk.stages.{n}" for n in range(3)), "trunk.norm_pre"],
}
NONE = {"mlp": [], "vit_tiny": []}


def built(name: str) -> tuple[nn.Module, Tensor]:
    x = SERIES if name in ("fcn", "inception_time", "mlp") else IMAGE
    cfg = compose("method=supervised", "data=synthetic", f"model@method.students.student={name}")
    with open_dict(cfg):
        cfg.task.num_classes, cfg.task.channels, cfg.task.num_inputs = 5, x.shape[1], x[0].numel()
    return build_net(cfg.method.students.student, 0, "student"), x


@pytest.mark.parametrize(("name", "names"), [*POOLED.items(), *NOT_POOLED.items(), *NONE.items()])
def test_they_are_those_that_the_net_names_up_to_its_last_map(name: str, names: list[str]) -> None:
    net, x = built(name)
    assert list(net_stages(net, x)) == names


@pytest.mark.parametrize("name", POOLED)
def test_the_mean_of_the_last_one_is_the_input_of_the_classifier(name: str) -> None:
    net, x = built(name)
    *_, last = net_stages(net, x)
    with torch.no_grad(), LayerOutputs(net.eval(), [last]).record() as outputs:
        features = net(x).features
    torch.testing.assert_close(outputs[last].flatten(2).mean(2), features)


def test_the_last_map_is_that_of_the_last_stage_and_a_net_without_stages_has_none() -> None:
    parts = [nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = Classifier(trunk=nn.Sequential(*parts), head=nn.Linear(4, 2), dropout=0.0)
    assert last_map(net, (1, 8, 8)) == ("trunk.0", (4, 6, 6))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    assert last_map(Classifier(trunk=flat, head=nn.Linear(4, 2), dropout=0.0), (1, 8, 8)) is None


def test_a_net_that_names_none_has_its_parts_with_one_for_each_shape() -> None:
    parts = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2)]
    excited = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1))  # not the last pooling

    class Excite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = excited

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gate(x).sigmoid()

    trunk = nn.Sequential(*parts, Excite(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = Classifier(trunk=trunk, head=nn.Linear(6, 2), dropout=0.0).train()
    assert net_stages(net, IMAGE) == {"trunk.1": (4, 30, 30), "trunk.5": (6, 14, 14)}
    assert net.training
