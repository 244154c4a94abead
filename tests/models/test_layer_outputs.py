"""Layers by name: of any net, without a trace in it."""

import gc
import pickle
import weakref
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.layer_outputs import LayerOutputs, check_layer, layer_shapes, outline
from kd_lightning.models.time_series import fcn
from kd_lightning.models.timm_nets import timm_classifier


def image_net(**options: float) -> nn.Module:
    torch.manual_seed(0)
    return timm_classifier("resnet18", num_classes=3, in_chans=3, **options)


def series_net() -> nn.Module:
    torch.manual_seed(0)
    return fcn(widths=[4, 6], kernels=[3, 3], num_classes=3, in_chans=2)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Linear(5, 3))


def test_an_output_is_the_layers_and_the_nets_output_does_not_change() -> None:
    net, x = image_net().eval(), torch.rand(2, 3, 32, 32)
    plain = net(x)
    with LayerOutputs(
        net, ["trunk.layer1", "trunk.layer2.0.conv1", "trunk", "head"]
    ).record() as outputs:
        recorded = net(x)
    assert torch.equal(outputs["head"], plain.logits)
    assert torch.equal(outputs["trunk"], plain.features)
    stem = net.trunk.maxpool(net.trunk.act1(net.trunk.bn1(net.trunk.conv1(net.prepare(x)))))
    torch.testing.assert_close(outputs["trunk.layer1"], net.trunk.layer1(stem))
    second = net.trunk.layer2[0].conv1(outputs["trunk.layer1"])
    torch.testing.assert_close(outputs["trunk.layer2.0.conv1"], second)
    assert torch.equal(recorded.logits, plain.logits)


def test_what_a_later_layer_overwrites_is_what_the_layer_gave() -> None:
    net, x = small_net(), torch.randn(8, 4)
    with LayerOutputs(net, ["1"]).record() as outputs:
        net(x)
    assert (outputs["1"] < 0).any()
    torch.testing.assert_close(outputs["1"].mean(0), torch.zeros(5), atol=1e-6, rtol=0)
    outputs["1"].square().sum().backward()
    assert net[0].weight.grad is not None


def test_dropout_after_a_stage_is_what_the_next_layer_gets() -> None:
    net, x = image_net(block_dropout=0.9).train(), torch.rand(2, 3, 32, 32)
    with LayerOutputs(net, ["trunk.layer1"]).record() as outputs:
        net(x)
    assert (outputs["trunk.layer1"] == 0).float().mean() > 0.8


def test_the_gradient_flows_through_a_tap_and_none_without_a_graph() -> None:
    net, x = series_net(), torch.randn(2, 2, 9)
    with LayerOutputs(net, ["trunk.stage1"]).record() as outputs:
        net(x)
    outputs["trunk.stage1"].sum().backward()
    assert net.trunk.stage1[0].weight.grad is not None
    assert net.trunk.stage2[0].weight.grad is None
    with torch.no_grad(), LayerOutputs(net, ["trunk.stage1"]).record() as outputs:
        net(x)
    assert outputs["trunk.stage1"].grad_fn is None


def hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules())


def test_outside_with_nothing_is_recorded_and_hooks_can_be_removed() -> None:
    net, x = image_net(block_dropout=0.1), torch.rand(2, 3, 32, 32)
    before, state = hooks(net), deepcopy(net.state_dict())
    layer_shapes(net, x[:1])
    assert hooks(net) == before
    layers = LayerOutputs(net, ["trunk.layer1"])
    net(x)
    assert layers.outputs == {}
    with layers.record() as outputs:
        net(x)
    assert list(outputs) == ["trunk.layer1"]
    assert net.state_dict().keys() == state.keys()
    with pytest.raises(UserError), layers.record():
        net(x[:, :1])
    assert layers.outputs == {}
    layers.remove()
    assert hooks(net) == before


def test_a_copy_or_a_pickle_of_the_net_records_nothing() -> None:
    net, x = series_net(), torch.randn(2, 2, 9)
    layers = LayerOutputs(net, ["trunk.stage1"])
    for copied in (deepcopy(net), pickle.loads(pickle.dumps(net))):
        copied.load_state_dict(net.state_dict())
        with layers.record() as outputs:
            copied(x)
        assert outputs == {}


def test_a_compiler_follows_recorded_layers() -> None:
    net, x = series_net(), torch.randn(4, 2, 9)
    layers = LayerOutputs(net, ["trunk.stage1", "trunk.stage2"])

    def step(x: Tensor) -> Tensor:
        with layers.record() as outputs:
            logits = net(x).logits
        return logits.sum() + outputs["trunk.stage1"].sum() + outputs["trunk.stage2"].sum()

    fast = torch.compile(step, fullgraph=True, dynamic=False, backend="eager")
    torch.testing.assert_close(fast(x), step(x))
    assert layers.outputs == {}


def test_outputs_and_graph_die_with_the_step() -> None:
    net = series_net()
    with LayerOutputs(net, ["trunk.stage1"]).record() as outputs:
        loss = net(torch.randn(2, 2, 9)).logits.sum() + outputs["trunk.stage1"].sum()
    output = weakref.ref(outputs["trunk.stage1"])
    loss.backward()
    del loss, outputs
    gc.collect()
    assert output() is None


def test_a_copy_is_recorded_by_itself() -> None:
    net = series_net()
    copied = deepcopy(net)
    mine, its = LayerOutputs(net, ["trunk"]), LayerOutputs(copied, ["trunk"])
    with mine.record() as of_net, its.record() as of_copy:
        net(torch.zeros(1, 2, 9))
    assert (list(of_net), list(of_copy)) == (["trunk"], [])


def test_autocast_is_what_the_layer_ran_in() -> None:
    net = series_net()
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        LayerOutputs(net, ["trunk.stage1.0"]).record() as outputs,
    ):
        net(torch.randn(2, 2, 9))
    assert outputs["trunk.stage1.0"].dtype == torch.bfloat16


def test_shapes_are_of_one_sample() -> None:
    shapes = layer_shapes(image_net(), torch.zeros(1, 3, 32, 32))
    assert shapes["trunk.layer1"] == (64, 8, 8)
    assert shapes["trunk.layer4.1.conv2"] == (512, 1, 1)
    assert (shapes["trunk"], shapes["head"]) == ((512,), (3,))
    shapes = layer_shapes(series_net(), torch.zeros(1, 2, 9))
    assert (shapes["trunk.stage1"], shapes["trunk.pool"]) == ((4, 9), (6,))


def test_a_look_changes_no_mode_no_statistic_and_draws_no_number() -> None:
    net = image_net(dropout=0.5).train()
    net.trunk.bn1.eval()
    state, modes = deepcopy(net.state_dict()), [m.training for m in net.modules()]
    generator = torch.random.get_rng_state()
    layer_shapes(net, torch.ones(1, 3, 32, 32))
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), generator)


class Odd(nn.Module):
    """Layers that no tap could stand for, and one that it could."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.unused, self.pair = nn.ReLU(), nn.ReLU(), Pair()
        self.tokens, self.flat = nn.Flatten(2), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        return self.flat(self.tokens(self.pair(self.twice(self.twice(x)))[0]))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_layers_of_two_passes_of_none_of_tuples_and_of_tokens_have_no_shape() -> None:
    net = Odd()
    shapes = layer_shapes(net, torch.zeros(1, 2, 3, 3))
    assert shapes == {"flat": (18,)}
    for name in ("twice", "unused", "pair", "tokens", ""):
        with pytest.raises(UserError) as refused:
            check_layer(name, net, shapes, "the teacher", "method.layers")
        assert str(refused.value) == (
            f"layer '{name}' of the teacher returns no single vector or feature map in a pass: "
            "expected one of flat (method.layers=…)"
        )


def test_a_wrong_name_lists_the_nearest_then_the_stages() -> None:
    net = image_net()
    shapes = layer_shapes(net, torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError) as refused:
        check_layer("trunk.layer3.0.conf1", net, shapes, "student a", "method.layers")
    said = str(refused.value)
    assert said.startswith(
        "unknown layer 'trunk.layer3.0.conf1' of student a: expected one of trunk.layer3.0.conv1, "
    )
    listed = said.partition("expected one of ")[2].removesuffix(" (method.layers=…)").split(", ")
    assert len(listed) <= 13  # and not the 60 there are
    assert set(listed) >= {"trunk", "trunk.layer1", "trunk.layer2", "trunk.layer3"}
    assert set(listed) - {"…"} <= shapes.keys()
    check_layer("trunk.layer3.0.conv1", net, shapes, "student a", "method.layers")


def test_an_outline_has_the_layers_that_learn_the_largest_alone() -> None:
    net = series_net()
    names = ["prepare", "trunk.stage1", "trunk.stage1.0", "trunk.dropout1", "trunk.pool", "head"]
    assert outline(net, names) == ["trunk.stage1", "head"]
    assert outline(net, ["prepare", "trunk.stage1.0"]) == ["trunk.stage1.0"]
    assert outline(net, ["prepare"]) == []
