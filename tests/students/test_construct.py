"""A received file calls no function but the nets of this package, unless it is allowed."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from kd_lightning.base.allowed import find_constructor
from kd_lightning.base.errors import UserError
from kd_lightning.config.command_line import CONF
from kd_lightning.students.construct import construct

FILE = Path("got.safetensors")
NETS = """
from functools import partial
from os import system

from torch import nn

class Block(nn.Linear):
    pass

def stack(*layers, size, activation):
    return nn.Sequential(*layers, nn.Linear(size, size), activation())

def fails():
    return 1 / 0
"""


@pytest.fixture
def my_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_blocks.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    return "my_blocks"


def test_every_net_of_the_configuration_can_be_called() -> None:
    files = [yaml.safe_load(path.read_text()) for path in (CONF / "model").glob("[!_]*.yaml")]
    targets = {content["_target_"] for content in files if "_target_" in content}
    assert len(targets) > 8
    for target in targets:
        assert callable(find_constructor(target, FILE, (), group="model"))


@pytest.mark.parametrize(
    "name",
    [
        "kd_lightning.run.distill",
        "kd_lightning.models.weights.read_state",
        "kd_lightning.models.timm_creation.os.system",
        "kd_lightning.models.cifar.partial",
        "kd_lightning.data.digits.Digits",
        "my_blocks.stack",
        "torch.nn.Linear",
        "torch.optim.SGD",
    ],
)
def test_what_is_no_net_of_ours_is_refused_and_not_imported(name: str) -> None:
    with pytest.raises(UserError, match=r"asks to call .*is no net of kd_lightning.*allow=\["):
        construct({"_target_": name, "command": "false"}, FILE, ())


@pytest.mark.parametrize("name", ["os.system", "builtins.exec", "posix.system", "system", "", "a."])
@pytest.mark.parametrize("allow", [[], ["os", "builtins", "posix"], ["*"]])
def test_what_is_of_python_or_no_name_is_never_called(name: str, allow: list[str]) -> None:
    with pytest.raises(UserError, match=r"asks to call .*, which builds no part of a run"):
        construct({"_target_": name, "command": "false"}, FILE, allow)


def test_what_an_allowed_module_only_imports_is_refused(my_blocks: str) -> None:
    for name in ("system", "partial"):
        with pytest.raises(UserError, match=rf"{name}, which is defined elsewhere"):
            construct({"_target_": f"{my_blocks}.{name}"}, FILE, [my_blocks])


def test_an_inner_constructor_must_be_allowed_too(my_blocks: str) -> None:
    values = {"_target_": f"{my_blocks}.stack", "size": 2, "activation": {"_target_": "os.getcwd"}}
    with pytest.raises(UserError, match=r"os.getcwd"):
        construct(values, FILE, [my_blocks])


@pytest.mark.parametrize("allow", [["my_blocks", "torch.nn"], ["my_blocks.stack", "torch"]])
def test_allowed_constructors_are_called_as_hydra_calls_them(
    my_blocks: str, allow: list[str]
) -> None:
    values = {
        "_target_": f"{my_blocks}.stack",
        "_convert_": "object",
        "_args_": [{"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}],
        "size": 2,
        "activation": {"_target_": "torch.nn.LeakyReLU", "_partial_": True, "negative_slope": 0.5},
    }
    net = construct(values, FILE, allow)
    assert [type(layer) for layer in net] == [nn.Linear, nn.Linear, nn.LeakyReLU]
    assert net[2].negative_slope == 0.5
    assert net(torch.ones(1, 3)).shape == (1, 2)


def test_a_package_is_not_allowed_by_the_beginning_of_its_name(my_blocks: str) -> None:
    with pytest.raises(UserError, match="is no net of kd_lightning"):
        find_constructor(f"{my_blocks}.stack", FILE, ["my_block"], group="model")


def test_a_missing_package_and_a_failing_constructor_are_one_sentence(my_blocks: str) -> None:
    with pytest.raises(UserError, match=r"needs not_there.net, which cannot be imported"):
        construct({"_target_": "not_there.net"}, FILE, ["not_there"])
    with pytest.raises(UserError, match=r"another version of my_blocks.fails: division by zero"):
        construct({"_target_": f"{my_blocks}.fails"}, FILE, [my_blocks])
