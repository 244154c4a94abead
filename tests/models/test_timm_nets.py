"""timm nets as classifiers, with any weights, for any classes, and with their statistics."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.timm_nets import timm_classifier
from kd_lightning.models.weights import load_weights

TINY = "test_resnet"  # a net of timm for tests, 0.5 million parameters


def tiny(**options: object) -> Classifier:
    return timm_classifier(TINY, **({"num_classes": 4, "in_chans": 3} | options))


def plain(name: str = TINY, classes: int = 4, **options: object) -> nn.Module:
    return timm.create_model(name, num_classes=classes, **options).eval()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_features_are_the_values_before_dropout() -> None:
    net = tiny(dropout=0.5).eval()
    net.dropout.train()
    x = torch.rand(2, 3, 32, 32)
    (first, features), (second, again) = net(x), net(x)
    assert torch.equal(features, again)
    assert not torch.equal(first, second)


def test_a_file_of_a_classifier_and_one_of_timm_give_the_same_net(tmp_path: Path) -> None:
    theirs = plain()
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    first = tiny(weights=str(tmp_path / "timm.safetensors")).eval()
    torch.save({"state_dict": first.state_dict()}, tmp_path / "ours.ckpt")
    second = tiny(weights=str(tmp_path / "ours.ckpt")).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(first(x).logits, second(x).logits)
    torch.testing.assert_close(first(x).logits, theirs(first.prepare(x)))
    third = tiny(block_dropout=0.5)  # dropout changes no name
    load_weights(third, tmp_path / "ours.ckpt")
    assert torch.equal(third.eval()(x).logits, second(x).logits)


def test_a_convolution_in_a_file_of_timm_becomes_the_linear_head(tmp_path: Path) -> None:
    theirs = plain("dpn48b")
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    ours = timm_classifier(
        "dpn48b", num_classes=4, in_chans=3, weights=str(tmp_path / "net.pt"), require_head=True
    ).eval()
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(x).logits, theirs(ours.prepare(x)))


def test_imagenet_rows_select_rows_of_the_head(tmp_path: Path) -> None:
    theirs = plain(classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    rows = [5, 990, 17]
    ours = tiny(
        num_classes=3, weights=str(tmp_path / "net.pt"), imagenet_rows=rows, require_head=True
    ).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours(x).logits, theirs(ours.prepare(x))[:, rows])
    assert ours.head.out_features == 3


def test_a_head_for_other_classes_raises_an_error_or_is_replaced(tmp_path: Path) -> None:
    theirs = plain(classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    with pytest.raises(UserError, match="must have the data's 3 classes, its weights have 1000"):
        tiny(num_classes=3, weights=str(tmp_path / "net.pt"), require_head=True)
    ours = tiny(num_classes=3, weights=str(tmp_path / "net.pt")).eval()
    x = torch.rand(2, 3, 32, 32)
    assert ours(x).logits.shape == (2, 3)
    torch.testing.assert_close(
        ours(x).features, theirs.forward_head(theirs.forward_features(ours.prepare(x)), True)
    )


def test_a_file_of_timm_that_does_not_fit_raises_an_error_with_its_own_names(
    tmp_path: Path,
) -> None:
    torch.save(plain("test_vit").state_dict(), tmp_path / "vit.pt")
    with pytest.raises(UserError, match=r"vit.pt do not fit the net: missing: conv1") as raised:
        tiny(weights=str(tmp_path / "vit.pt"))
    assert "unexpected: cls_token, pos_embed, " in str(raised.value)
    assert "trunk" not in str(raised.value)
    state = plain().state_dict()
    state["fc.weight"] = torch.zeros(4, 3)
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(
        UserError, match=r"net: of another shape: fc.weight \[4, 3\], expected \[4, "
    ):
        tiny(weights=str(tmp_path / "net.pt"))


def statistics(net: Classifier) -> tuple[list[float], list[float]]:
    return tuple([round(v, 3) for v in s.tolist()] for s in (net.prepare.mean, net.prepare.std))


def test_statistics_are_those_of_the_training_of_the_weights(tmp_path: Path) -> None:
    data = {"data_mean": [0.1] * 3, "data_std": [0.2] * 3}
    arguments = {"mean": [0.3] * 3, "std": [0.4] * 3}
    theirs, ours = str(tmp_path / "theirs.pt"), str(tmp_path / "ours.pt")
    torch.save(plain().state_dict(), theirs)
    torch.save(tiny(mean=[0.7] * 3, std=[0.8] * 3).state_dict(), ours)
    config = timm.get_pretrained_cfg(TINY)
    assert statistics(tiny(**data)) == ([0.1] * 3, [0.2] * 3)
    assert statistics(tiny(**data, weights=theirs)) == (list(config.mean), list(config.std))
    assert statistics(tiny(**data, weights=ours)) == ([0.7] * 3, [0.8] * 3)
    for weights in ("none", theirs, ours):
        assert statistics(tiny(**data, **arguments, weights=weights)) == ([0.3] * 3, [0.4] * 3)


def test_grey_images_get_the_mean_of_the_statistics_of_timm(tmp_path: Path) -> None:
    torch.save(plain(in_chans=1).state_dict(), tmp_path / "grey.pt")
    config = timm.get_pretrained_cfg(TINY)
    net = tiny(in_chans=1, weights=str(tmp_path / "grey.pt"))
    assert statistics(net) == ([round(sum(config.mean) / 3, 3)], [round(sum(config.std) / 3, 3)])
    torch.save(plain(in_chans=4).state_dict(), tmp_path / "four.pt")
    with pytest.raises(UserError, match=r"for 3 channels, the data have 4.*\(…mean=…"):
        tiny(in_chans=4, weights=str(tmp_path / "four.pt"))
