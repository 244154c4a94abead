"""Every net goes through its file without a change, and can be scripted."""

import json
from pathlib import Path

import pytest
import timm
import torch
from helpers import SERIES_NETS
from student_files import build_random, info_of, make_student, net_config, samples
from torch import nn
from torch.nn import functional

import kd_lightning
from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import CONF
from kd_lightning.students.architecture import TIMM, describe_architecture
from kd_lightning.students.file import METADATA, read_student, write_student

NETS = sorted(path.stem for path in (CONF / "model").glob("[!_]*.yaml"))
# The same nets with few layers and channels, so that they are fast.
SMALL = {
    "fcn": {"widths": [4, 6, 4]},
    "fcn_half": {"widths": [4, 6, 4]},
    "inception_time": {"width": 2, "depth": 3},
    "mlp": {"widths": [5, 4]},
    "convnext_atto": {"name": "test_convnext"},
    "mobilenetv2_half": {"width": 0.1, "expansion": 2},
    "resnet34": {"name": "test_resnet"},
    "resnet1d": {"widths": [4, 6, 4]},
    "shufflenetv1": {"widths": [12, 24, 48, 96]},
    "shufflenetv2": {"widths": [8, 8, 16, 32, 16]},
    "timm": {"name": "test_resnet"},
    "vgg13": {"widths": [[4, 4], [4, 6], [4], [4], [4]]},
    "vgg8": {"widths": [[4], [6], [4], [4], [4]]},
    "vit_tiny": {"name": "test_vit", "input_size": None},
}
SMALL |= {n: {"depth": 8, "widths": [4, 4, 6, 8]} for n in NETS if n.startswith("resnet") and
          n not in ("resnet1d", "resnet18", "resnet34", "resnet50")}  # fmt: skip
SMALL |= {name: {"depth": 10, "widen": 1} for name in NETS if name.startswith("wrn")}


def kind_of(net: str) -> str:
    return "series" if net in SERIES_NETS else "colour"


def as_timm_takes(x: torch.Tensor, given: dict) -> torch.Tensor:
    if (size := given["net_size"]) is not None:
        x = functional.interpolate(x, (size, size), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(given[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    return (x - mean) / std


def create_by_timm(path: Path) -> nn.Module:
    found = kd_lightning.load(path).info["architecture"]
    return timm.create_model(found["timm"], **found["arguments"], checkpoint_path=str(path)).eval()


@pytest.mark.parametrize("name", NETS)
def test_every_net_is_loaded_bit_for_bit_and_can_be_scripted(name: str, tmp_path: Path) -> None:
    kind = kind_of(name)
    config = net_config(name, kind, **SMALL.get(name, {}))
    net, path = make_student(tmp_path, config, kind)
    x = samples(kind)
    expected = net(x)
    assert not torch.equal(*expected.logits)  # else equality below would say little
    student = kd_lightning.load(path)
    assert torch.equal(student(x), expected.logits)
    assert torch.equal(student.features(x), expected.features)
    assert not student.training
    with torch.jit.optimized_execution(False):
        scripted = torch.jit.script(student)
        assert torch.equal(scripted(x), expected.logits)
    if config["_target_"] == TIMM:
        x = as_timm_takes(x, student.info["input"])
        assert torch.equal(create_by_timm(path)(x), expected.logits)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
def test_a_timm_net_that_is_built_for_another_size_is_loaded(name: str, tmp_path: Path) -> None:
    config = net_config("timm", "colour", name=name, input_size=64)
    net, path = make_student(tmp_path, config, "colour")
    x = samples("colour")
    student = kd_lightning.load(path)
    assert torch.equal(student(x), net(x).logits)
    x = as_timm_takes(x, student.info["input"])
    assert x.shape[-1] == 64
    assert torch.equal(create_by_timm(path)(x), student(samples("colour")))


def test_a_head_that_is_a_convolution_keeps_timms_shape(tmp_path: Path) -> None:
    net, path = make_student(tmp_path, net_config("timm", "colour", name="resnetv2_18"), "colour")
    x = samples("colour")
    student = kd_lightning.load(path)
    assert torch.equal(student(x), net(x).logits)
    _, state = read_student(path)
    assert state["head.fc.weight"].ndim == 4
    theirs = create_by_timm(path)(as_timm_takes(x, student.info["input"]))
    torch.testing.assert_close(theirs, net(x).logits)  # a convolution sums in another order


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_timm_refuses_a_net_that_it_would_build_differently(name: str, tmp_path: Path) -> None:
    config = net_config("timm", "colour", name=name, small_stem=True)
    net, path = make_student(tmp_path, config, "colour")
    x = samples("colour")
    assert torch.equal(kd_lightning.load(path)(x), net(x).logits)
    with pytest.raises(RuntimeError, match="Missing key"):
        timm.create_model(name, num_classes=3, checkpoint_path=str(path))


@pytest.mark.parametrize("small_stem", [False, True])
def test_a_loaded_timm_net_has_no_hooks(small_stem: bool, tmp_path: Path) -> None:
    name = "mobilenetv3_small_050" if small_stem else "test_resnet"
    arguments = {"name": name, "block_dropout": 0.3, "small_stem": small_stem}
    net, path = make_student(tmp_path, net_config("timm", "colour", **arguments), "colour")
    assert any(module._forward_hooks for module in net.modules())
    student = kd_lightning.load(path)
    assert not any(module._forward_hooks for module in student.modules())
    assert torch.equal(student(samples("colour")), net(samples("colour")).logits)


@pytest.mark.parametrize("configured", [{}, {"mean": None, "std": None}])
def test_the_statistics_are_those_of_the_weights_and_not_of_the_configuration(
    configured: dict, tmp_path: Path
) -> None:
    config = net_config("mlp", "grey", **SMALL["mlp"], **configured)
    net = build_random(config)
    net.prepare.set_statistics([0.7], [0.2])  # as a file of weights does
    info = info_of(config, net, "grey")
    student = kd_lightning.load(write_student(tmp_path, net.state_dict(), info))
    assert student.info["input"]["mean"] == pytest.approx([0.7])
    assert torch.equal(student(samples("grey")), net(samples("grey")).logits)


def test_a_net_without_statistics_does_not_normalize(tmp_path: Path) -> None:
    for number, name in enumerate(("mlp", "timm")):
        config = net_config(name, "colour", **SMALL[name], mean=None, std=None)
        config |= {"data_mean": None, "data_std": None} if name == "timm" else {}
        net, path = make_student(tmp_path / str(number), config, "colour")
        student = kd_lightning.load(path)
        assert student.info["input"]["mean"] is None
        assert torch.equal(student(samples("colour")), net(samples("colour")).logits)


def test_weights_that_normalize_nothing_win_over_the_configuration(tmp_path: Path) -> None:
    for number, words in enumerate(({}, {"name": "test_efficientnet", "small_stem": True})):
        name = "timm" if words else "mlp"
        config = net_config(name, "colour", **SMALL[name] | words)
        net = build_random(config)
        assert net.prepare.mean is not None
        net.prepare.set_statistics(None, None)  # as a file of weights for plain input does
        path = write_student(
            tmp_path / str(number), net.state_dict(), info_of(config, net, "colour")
        )
        student = kd_lightning.load(path)
        assert torch.equal(student(samples("colour")), net(samples("colour")).logits)


def test_a_net_from_elsewhere_keeps_the_arguments_that_it_needs() -> None:
    config = {"_target_": "my_networks.small", "drop_path": 0.1, "weights": "x.pt", "mean": [0.5]}
    described = describe_architecture(config, {"trunk.weight": torch.ones(1)})
    assert described["arguments"] == {"drop_path": 0.1, "mean": [0.5]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("head.bias"), "lacks the weights head.bias of its net"),
        (lambda state: state.update(extra=torch.ones(1)), "has the weights extra, which its net"),
        (
            lambda state: state.update({"head.weight": torch.ones(3, 7)}),
            r"head.weight in .* have the shape \[3, 7\], its net has \[3, 4\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_one_sentence(change, message: str, tmp_path: Path) -> None:
    config = net_config("mlp", "grey", **SMALL["mlp"])
    net = build_random(config)
    state = net.state_dict()
    change(state)
    path = write_student(tmp_path, state, info_of(config, net, "grey"))
    with pytest.raises(UserError, match=message):
        kd_lightning.load(path)


def test_the_json_beside_the_file_is_its_metadata(tmp_path: Path) -> None:
    _, path = make_student(tmp_path, net_config("mlp", "grey", **SMALL["mlp"]), "grey")
    info, _ = read_student(path)
    assert json.loads((tmp_path / "student.json").read_text()) == info
    assert METADATA == "kd_lightning"  # the key that other programs read


@pytest.mark.parametrize("odd", [{"_partial_": True}, {"weights": "/somewhere/else.pt"}])
def test_a_constructor_of_a_file_reads_no_other_file_and_returns_a_net(
    odd: dict, tmp_path: Path
) -> None:
    _, path = make_student(tmp_path, net_config("mlp", "grey", widths=[4]), "grey")
    info, state = read_student(path)
    info["architecture"]["arguments"] |= odd
    write_student(tmp_path / "odd", state, info)
    with pytest.raises(UserError, match=f"its constructor has the argument {next(iter(odd))}"):
        kd_lightning.load(tmp_path / "odd")
