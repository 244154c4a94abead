from pathlib import Path

import pytest
import torch
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.cifar import resnet
from kd_lightning.models.projected import projected_resnet, projector

COMMON = {"depth": 8, "widths": [4, 4, 6, 8], "num_classes": 3, "in_chans": 1}


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_features_are_the_mean_of_the_projected_map() -> None:
    net, x = projected_resnet(**COMMON, projected=12).eval(), torch.rand(2, 1, 8, 8)
    trunk = net.trunk
    last = trunk.stage3(trunk.stage2(trunk.stage1(trunk.stem(x))))
    torch.testing.assert_close(net(x).features, trunk.projector(last).mean(dim=(2, 3)))
    assert net(x).logits.shape == (2, 3)


def test_it_is_the_resnet_and_its_projector_with_a_classifier_of_that_size() -> None:
    net, plain = projected_resnet(**COMMON, projected=12), resnet(**COMMON)
    assert parameters(net.trunk) == parameters(plain.trunk) + parameters(net.trunk.projector)
    assert net.head.in_features == 12
    # 8 -> 6 -> 6 -> 12, and two numbers of batch norm for each channel
    assert parameters(projector(8, 12)) == 8 * 6 + 9 * 6 * 6 + 6 * 12 + 2 * (6 + 6 + 12)


def test_the_number_of_parameters_is_that_of_its_configuration() -> None:
    widths = [32, 64, 128, 256]
    net = projected_resnet(depth=8, widths=widths, projected=256, num_classes=100, in_chans=3)
    yaml = (Path(__file__).parents[2] / "conf/model/resnet8x4_projected.yaml").read_text()
    assert f"{parameters(net):,} parameters at 100 classes" in yaml


def test_it_starts_from_a_file_of_its_weights(tmp_path: Path) -> None:
    net = projected_resnet(**COMMON, projected=12)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    again = projected_resnet(**COMMON, projected=12, weights=str(tmp_path / "weights.pt"))
    for name, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize("name", ["projected", "reduction"])
def test_bad_sizes_name_their_key(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} must be >= 1, got 0 \(…{name}=…\)"):
        projected_resnet(**(COMMON | {"projected": 12} | {name: 0}))
