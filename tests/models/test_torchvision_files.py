"""Weights of torchvision serve timm's nets, where it can be shown that the nets are the same."""

from pathlib import Path

import pytest
import torch
import torchvision

from kd_lightning.base.errors import UserError
from kd_lightning.models.timm_nets import timm_classifier
from kd_lightning.models.torchvision_files import find_architecture
from kd_lightning.models.weights import load_weights


def test_torchvisions_resnets_have_timms_names(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(num_classes=4).eval()
    torch.save({"model": theirs.state_dict(), "epoch": 90}, tmp_path / "model_90.pth")
    ours = timm_classifier("resnet18", num_classes=4, in_chans=3).eval()
    load_weights(ours, tmp_path / "model_90.pth")
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours(x).logits, theirs(ours.prepare(x)))


def test_the_same_net_under_other_names_is_translated(tmp_path: Path) -> None:
    theirs = torchvision.models.mobilenet_v2(num_classes=4).eval()
    for module in theirs.modules():  # as after training: batch norm has statistics
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save({f"module.{k}": v for k, v in theirs.state_dict().items()}, tmp_path / "net.pth")
    ours = timm_classifier("mobilenetv2_100", num_classes=2, in_chans=3).eval()
    load_weights(ours, tmp_path / "net.pth", any_classes=True)
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(x).logits, theirs(ours.prepare(x)))


def test_another_form_of_the_net_is_refused_by_its_name(tmp_path: Path) -> None:
    theirs = torchvision.models.mobilenet_v3_small(num_classes=4)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    ours = timm_classifier("mobilenetv3_small_100", num_classes=4, in_chans=3)
    with pytest.raises(UserError, match=r"weights of torchvision's mobilenet_v3_small, .*\(key=…"):
        load_weights(ours, tmp_path / "net.pth", "key")


def test_names_that_no_net_of_torchvision_has() -> None:
    assert find_architecture({"stem.weight": torch.ones(1)}) is None


def test_a_deeper_net_is_not_taken_for_one_whose_names_it_has_too() -> None:
    with torch.device("meta"):
        state = torchvision.models.efficientnet_b1(num_classes=4).state_dict()
    found = find_architecture({f"model.{name}": value for name, value in state.items()})
    assert found is not None
    assert found[0] == "efficientnet_b1"


def test_a_net_of_the_same_shapes_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    theirs = torchvision.models.mobilenet_v2(num_classes=4)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    ours = timm_classifier("mobilenetv2_100", num_classes=4, in_chans=3)
    ours.trunk.bn1.eps = 1.0
    with pytest.raises(UserError, match=r"weights of torchvision's mobilenet_v2, .*\(key=…\)"):
        load_weights(ours, tmp_path / "net.pth", "key")


def test_of_translated_weights_the_average_or_the_named_ones_are_taken(tmp_path: Path) -> None:
    theirs = [torchvision.models.mobilenet_v2(num_classes=2).eval() for _ in range(2)]
    average = {f"module.{k}": v for k, v in theirs[1].state_dict().items()}
    content = {"model": theirs[0].state_dict(), "model_ema": average}
    torch.save(content, tmp_path / "both.pth")
    x = torch.rand(1, 3, 32, 32)
    for weights_key, expected in ((None, 1), ("model_ema", 1), ("model", 0)):
        ours = timm_classifier("mobilenetv2_100", num_classes=2, in_chans=3).eval()
        loaded = load_weights(ours, tmp_path / "both.pth", weights_key=weights_key)
        torch.testing.assert_close(ours(x).logits, theirs[expected](ours.prepare(x)))
        assert any("the average is used" in note for note in loaded.notes) == (weights_key is None)
    with pytest.raises(UserError, match="has no weights for the net under other"):
        load_weights(ours, tmp_path / "both.pth", weights_key="other")
