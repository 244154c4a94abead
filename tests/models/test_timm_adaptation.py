"""An adapted timm net computes what the timm net does. What it does not support raises an error."""

import copy
import pickle
from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.timm_adaptation import DropoutHook, head_name, use_small_stem
from kd_lightning.models.timm_nets import timm_classifier

FAMILIES = {
    "resnet18": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_050": 64,
    "tf_efficientnet_lite0": 64,
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 224,
    "vgg11": 64,  # draws 133 million weights, twice
    "densenet121": 64,
    "regnety_002": 64,
    "dpn48b": 64,  # its classifier is a 1 x 1 convolution
    "efficientvit_m0": 224,  # norm before the classifier, inside the head
}
TINY = "test_resnet"  # a net of timm for tests, 0.5 million parameters


def tiny(**options: object) -> Classifier:
    return timm_classifier(TINY, **({"num_classes": 4, "in_chans": 3} | options))


def plain(name: str = TINY, classes: int = 4, **options: object) -> nn.Module:
    return timm.create_model(name, num_classes=classes, **options).eval()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n == "vgg11" else n for n in FAMILIES],
)
def test_trunk_and_head_compute_what_the_timm_net_does(name: str) -> None:
    torch.manual_seed(0)
    theirs = plain(name, 7)
    torch.manual_seed(0)
    ours = timm_classifier(name, num_classes=7, in_chans=3).eval()
    x = torch.rand(2, 3, FAMILIES[name], FAMILIES[name])
    with torch.no_grad():
        logits, features = ours(x)
        expected = theirs(x)
    torch.testing.assert_close(logits, expected)
    assert features.shape == (2, ours.head.in_features)
    assert torch.equal(ours.head(features), logits)


@pytest.mark.parametrize("name", ["levit_128s", "repvit_m0_9", "volo_d1_224"])
def test_nets_that_do_not_end_with_one_linear_layer_raise_an_error(name: str) -> None:
    with pytest.raises(UserError, match="does not end with one linear layer"):
        timm_classifier(name, num_classes=2, in_chans=3)


def test_a_small_resnet_stem_has_no_pretrained_weights() -> None:
    net = plain("resnet18")
    with pytest.raises(
        UserError, match=r"no weights for resnet18 with a small stem.*\(…weights=…\)"
    ):
        use_small_stem(net, "resnet18", pretrained=True)


def test_a_small_stem_keeps_the_size_of_the_image() -> None:
    for name, expected in (("resnet18", "conv1"), ("mobilenetv3_small_050", "conv_stem")):
        net = timm_classifier(name, num_classes=2, in_chans=1, small_stem=True).eval()
        stem = net.trunk.get_submodule(expected)
        assert (stem.kernel_size, stem.stride) == ((3, 3), (1, 1))
        assert stem(torch.rand(1, 1, 28, 28)).shape[-1] == 28
        assert net(torch.rand(2, 1, 28, 28)).logits.shape == (2, 2)


def test_resnet50_for_cifar_has_the_published_number_of_parameters() -> None:
    net = timm_classifier("resnet50", num_classes=100, in_chans=3, small_stem=True)
    assert sum(parameter.numel() for parameter in net.parameters()) == 23_705_252


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "resnet18d"])
def test_nets_without_a_strided_convolution_have_no_small_stem(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} has no small stem.*small_stem=false"):
        timm_classifier(name, num_classes=2, in_chans=3, small_stem=True)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_block_dropout_is_copied_with_the_net(copied: Callable[[Classifier], Classifier]) -> None:
    net = tiny(block_dropout=0.5).eval()
    copied_net = copied(net)
    for member in (net, copied_net):
        hooks = [
            hook.dropout
            for module in member.trunk.modules()
            for hook in module._forward_hooks.values()
            if isinstance(hook, DropoutHook)
        ]
        assert len(hooks) == len(member.trunk.block_dropout) > 1
        assert {id(d) for d in hooks} == {id(d) for d in member.trunk.block_dropout}
    x = torch.rand(2, 3, 32, 32)
    for dropout in copied_net.trunk.block_dropout:
        dropout.train()
    assert not torch.equal(copied_net(x).features, copied_net(x).features)
    assert torch.equal(net(x).features, net(x).features)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224", "regnety_002"])
def test_every_block_dropout_has_an_effect(name: str) -> None:
    net = timm_classifier(name, num_classes=2, in_chans=3, block_dropout=0.5).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        without = net(x).features
        for dropout in net.trunk.block_dropout:
            dropout.train()
            assert not torch.equal(net(x).features, without)
            dropout.eval()


def test_stages_that_never_run_raise_an_error() -> None:
    with pytest.raises(UserError, match=r"coat_tiny has no stages .*\(…block_dropout=…\)"):
        timm_classifier("coat_tiny", num_classes=2, in_chans=3, block_dropout=0.1)


def test_building_draws_the_random_numbers_of_timm_and_keeps_training_mode() -> None:
    torch.manual_seed(3)
    theirs = timm.create_model(TINY, num_classes=4)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    ours = tiny()
    assert torch.equal(torch.rand(1), drawn)
    assert ours.training
    assert torch.equal(ours.head.weight, theirs.get_submodule(head_name(theirs)).weight)
    assert torch.equal(ours.trunk.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)
    assert all(m.num_batches_tracked == 0 for m in ours.modules() if isinstance(m, nn.BatchNorm2d))
