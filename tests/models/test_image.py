"""timm nets: equal to the plain net, with any weights, for any classes. No network is used."""

import copy
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from kd_lightning.errors import UserError
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.image import timm_classifier
from kd_lightning.models.surgery import DropOutput, head_name
from kd_lightning.models.weights import load_weights

FAMILIES = {
    "resnet18": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_050": 64,
    "tf_efficientnet_lite0": 64,
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 224,
    "vgg11": 64,
    "densenet121": 64,
    "regnety_002": 64,
    "dpn48b": 64,  # its classifier is a 1 x 1 convolution
    "efficientvit_m0": 224,  # norm before the classifier, inside the head
}
TINY = "test_resnet"  # timm's own net for tests, 0.5 million parameters, conv1 and maxpool
TINY_STEM = "test_efficientnet"  # the same with conv_stem


def tiny(**options: object) -> Classifier:
    return timm_classifier(TINY, **({"num_classes": 4, "in_chans": 3} | options))


def plain(name: str = TINY, classes: int = 4, **options: object) -> nn.Module:
    return timm.create_model(name, num_classes=classes, **options).eval()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", FAMILIES)
def test_trunk_and_head_are_the_timm_net(name: str, tmp_path: Path) -> None:
    theirs = plain(name, 7)
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    ours = timm_classifier(name, num_classes=7, in_chans=3, weights=str(tmp_path / "net.pt")).eval()
    x = torch.rand(2, 3, FAMILIES[name], FAMILIES[name])
    with torch.no_grad():
        logits, features = ours(x)
        expected = theirs(ours.prepare(x))
    torch.testing.assert_close(logits, expected)
    assert features.shape == (2, ours.head.in_features)
    assert torch.equal(ours.head(features), logits)


def test_features_are_what_stands_before_dropout() -> None:
    net = tiny(dropout=0.5).eval()
    net.dropout.train()
    x = torch.rand(2, 3, 32, 32)
    (first, features), (second, again) = net(x), net(x)
    assert torch.equal(features, again)
    assert not torch.equal(first, second)


def test_unknown_names_get_the_nearest_ones() -> None:
    with pytest.raises(UserError, match=r"unknown timm model 'resnet51': .*resnet50.*\(…name=…\)"):
        timm_classifier("resnet51", num_classes=2, in_chans=3)
    with pytest.raises(UserError, match=r"unknown weights of timm's resnet18 .*a1_in1k"):
        timm_classifier("resnet18.a1_in1", num_classes=2, in_chans=3)


@pytest.mark.parametrize("name", ["levit_128s", "repvit_m0_9", "volo_d1_224"])
def test_nets_that_do_not_end_with_one_linear_layer_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="does not end with one linear layer"):
        timm_classifier(name, num_classes=2, in_chans=3)


# Weights from files


def test_a_file_of_ours_and_one_of_timms_give_the_same_net(tmp_path: Path) -> None:
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


def test_imagenet_rows_keep_their_part_of_the_head(tmp_path: Path) -> None:
    theirs = plain(classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    rows = [5, 990, 17]
    ours = tiny(
        num_classes=3, weights=str(tmp_path / "net.pt"), imagenet_rows=rows, require_head=True
    ).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours(x).logits, theirs(ours.prepare(x))[:, rows])
    assert ours.head.out_features == 3


def test_a_head_of_other_classes_is_refused_or_replaced(tmp_path: Path) -> None:
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


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    torch.save(plain("test_vit").state_dict(), tmp_path / "vit.pt")
    with pytest.raises(UserError, match=r"vit.pt does not fit the net: it lacks trunk"):
        tiny(weights=str(tmp_path / "vit.pt"))


# Statistics


def statistics(net: Classifier) -> tuple[list[float], list[float]]:
    return tuple([round(v, 3) for v in s.tolist()] for s in (net.prepare.mean, net.prepare.std))


def test_statistics_are_those_the_weights_were_learnt_with(tmp_path: Path) -> None:
    data = {"data_mean": [0.1] * 3, "data_std": [0.2] * 3}
    given = {"mean": [0.3] * 3, "std": [0.4] * 3}
    theirs, ours = str(tmp_path / "theirs.pt"), str(tmp_path / "ours.pt")
    torch.save(plain().state_dict(), theirs)
    torch.save(tiny(mean=[0.7] * 3, std=[0.8] * 3).state_dict(), ours)
    config = timm.get_pretrained_cfg(TINY)
    assert statistics(tiny(**data)) == ([0.1] * 3, [0.2] * 3)
    assert statistics(tiny(**data, weights=theirs)) == (list(config.mean), list(config.std))
    assert statistics(tiny(**data, weights=ours)) == ([0.7] * 3, [0.8] * 3)
    for weights in ("none", theirs, ours):
        assert statistics(tiny(**data, **given, weights=weights)) == ([0.3] * 3, [0.4] * 3)


def test_grey_images_get_the_mean_of_timms_statistics(tmp_path: Path) -> None:
    torch.save(plain(in_chans=1).state_dict(), tmp_path / "grey.pt")
    config = timm.get_pretrained_cfg(TINY)
    net = tiny(in_chans=1, weights=str(tmp_path / "grey.pt"))
    assert statistics(net) == ([round(sum(config.mean) / 3, 3)], [round(sum(config.std) / 3, 3)])
    torch.save(plain(in_chans=4).state_dict(), tmp_path / "four.pt")
    with pytest.raises(UserError, match=r"those of 3 channels, the data have 4.*\(…mean=…"):
        tiny(in_chans=4, weights=str(tmp_path / "four.pt"))


# The library's weights


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub at which nobody listens."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("offline", [False, True])
def test_a_missing_network_is_one_sentence_at_once(
    no_network: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    started = time.perf_counter()
    with pytest.raises(UserError, match=r"resnet18 are not on this machine.*\(…weights=…\)"):
        timm_classifier("resnet18", num_classes=2, in_chans=3, weights="pretrained")
    assert time.perf_counter() - started < 5


def test_cached_weights_need_no_network(no_network: Path) -> None:
    config = timm.get_pretrained_cfg(TINY)
    theirs = plain(classes=1000)
    repository = no_network / f"models--{config.hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(theirs.state_dict(), repository / "snapshots" / ("0" * 40) / "model.safetensors")
    ours = tiny(num_classes=1000, weights="pretrained", require_head=True).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours(x).logits, theirs(ours.prepare(x)))
    assert statistics(ours) == (list(config.mean), list(config.std))
    rows = tiny(num_classes=2, weights="pretrained", imagenet_rows=[7, 3]).eval()
    assert torch.equal(rows.head.weight, theirs.get_classifier().weight[[7, 3]])
    with pytest.raises(UserError, match="its weights have 1000"):
        tiny(num_classes=2, weights="pretrained", require_head=True)
    with pytest.raises(UserError, match="none for a small stem"):
        tiny(weights="pretrained", small_stem=True)


def test_a_net_that_timm_has_no_weights_for_says_so() -> None:
    with pytest.raises(UserError, match="timm has no weights for resnet50_clip"):
        timm_classifier("resnet200", num_classes=2, in_chans=3, weights="pretrained")


# Stem, dropout, size


def test_a_small_stem_keeps_the_side() -> None:
    for name, expected in ((TINY, "conv1"), (TINY_STEM, "conv_stem")):
        net = timm_classifier(name, num_classes=2, in_chans=1, small_stem=True).eval()
        stem = net.trunk.get_submodule(expected)
        assert (stem.kernel_size, stem.stride) == ((3, 3), (1, 1))
        assert stem(torch.rand(1, 1, 28, 28)).shape[-1] == 28
        assert net(torch.rand(2, 1, 28, 28)).logits.shape == (2, 2)


def test_resnet50_for_cifar_has_the_published_parameters() -> None:
    net = timm_classifier("resnet50", num_classes=100, in_chans=3, small_stem=True)
    assert sum(parameter.numel() for parameter in net.parameters()) == 23_705_252


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "resnet18d"])
def test_nets_without_a_strided_convolution_have_no_small_stem(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} has no small stem.*small_stem=false"):
        timm_classifier(name, num_classes=2, in_chans=3, small_stem=True)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_block_dropout_goes_with_a_copy(copied: Callable[[Classifier], Classifier]) -> None:
    net = tiny(block_dropout=0.5).eval()
    twin = copied(net)
    for member in (net, twin):
        hooks = [
            hook.dropout
            for module in member.trunk.modules()
            for hook in module._forward_hooks.values()
            if isinstance(hook, DropOutput)
        ]
        assert len(hooks) == len(member.trunk.block_dropout) > 1
        assert {id(d) for d in hooks} == {id(d) for d in member.trunk.block_dropout}
    x = torch.rand(2, 3, 32, 32)
    for dropout in twin.trunk.block_dropout:
        dropout.train()
    assert not torch.equal(twin(x).features, twin(x).features)
    assert torch.equal(net(x).features, net(x).features)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224", "regnety_002"])
def test_every_block_dropout_drops(name: str) -> None:
    net = timm_classifier(name, num_classes=2, in_chans=3, block_dropout=0.5).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        steady = net(x).features
        for dropout in net.trunk.block_dropout:
            dropout.train()
            assert not torch.equal(net(x).features, steady)
            dropout.eval()


def test_stochastic_depth_is_timms_or_refused() -> None:
    net = timm_classifier("test_convnext", num_classes=2, in_chans=3, drop_path=0.3)
    rates = [m.drop_prob for m in net.modules() if hasattr(m, "drop_prob")]
    assert max(rates) == pytest.approx(0.3)
    for name in ("vgg11", "dla46x_c"):
        with pytest.raises(UserError, match=rf"{name} has no stochastic depth.*drop_path"):
            timm_classifier(name, num_classes=2, in_chans=3, drop_path=0.3)
    with pytest.raises(UserError, match="drop_path must be in"):
        tiny(drop_path=1.0)


def test_stages_that_never_run_get_no_dropout() -> None:
    with pytest.raises(UserError, match=r"coat_tiny has no stages .*\(…block_dropout=…\)"):
        timm_classifier("coat_tiny", num_classes=2, in_chans=3, block_dropout=0.1)


def test_input_size_resizes_images_or_builds_the_net_for_it() -> None:
    net = tiny(input_size=48)
    assert net.prepare(torch.rand(2, 3, 32, 32)).shape[-1] == 48
    vit = timm_classifier("vit_tiny_patch16_224", num_classes=2, in_chans=3)
    assert vit.prepare(torch.rand(1, 3, 32, 32)).shape[-1] == 224
    small = timm_classifier("vit_tiny_patch16_224", num_classes=2, in_chans=3, input_size=32)
    assert small.trunk.patch_embed.num_patches == 4
    assert small.eval()(torch.rand(1, 3, 40, 40)).logits.shape == (1, 2)
    with pytest.raises(UserError, match=r"cannot be built for 33.*input_size"):
        timm_classifier("swin_tiny_patch4_window7_224", num_classes=2, in_chans=3, input_size=33)


def test_building_draws_what_timm_draws_and_leaves_training_mode_on() -> None:
    torch.manual_seed(3)
    theirs = timm.create_model(TINY, num_classes=4)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    ours = tiny()
    assert torch.equal(torch.rand(1), drawn)
    assert ours.training
    assert torch.equal(ours.head.weight, theirs.get_submodule(head_name(theirs)).weight)
    assert torch.equal(ours.trunk.conv1.weight, theirs.conv1.weight)
    assert all(
        m.num_batches_tracked == 0 for m in ours.modules() if isinstance(m, nn.BatchNorm2d)
    )
