import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.models.weights import (
    bare_name,
    check_source,
    in_our_layout,
    load_weights,
    read_state,
)


def net(classes: int = 3, mean: list[float] | None = None) -> Classifier:
    return Classifier(
        prepare=Prepare(mean, None if mean is None else [2.0] * len(mean)),
        trunk=nn.Sequential(nn.Flatten(), nn.Linear(4, 5)),
        head=nn.Linear(5, classes),
        dropout=0.0,
    )


def assert_same(state: dict, other: dict) -> None:
    assert state.keys() == other.keys()
    for name in state:
        assert torch.equal(state[name], other[name]), name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
    ],
    ids=["raw", "state_dict", "model", "nested", "DataParallel", "compiled"],
)
def test_every_wrapping_gives_the_same_tensors(tmp_path: Path, wrap: Callable) -> None:
    state = net().state_dict()
    torch.save(wrap(state), tmp_path / "net.pt")
    assert_same(read_state(tmp_path / "net.pt"), state)


def test_safetensors_are_read(tmp_path: Path) -> None:
    state = net().state_dict()
    save_file(state, tmp_path / "net.safetensors")
    assert_same(read_state(tmp_path / "net.safetensors"), state)


def test_a_compiled_part_inside_a_net_has_its_bare_name() -> None:
    assert bare_name("module.trunk._orig_mod.conv.weight") == "trunk.conv.weight"
    assert bare_name("trunk.module.weight") == "trunk.module.weight"


class Runs:
    """An object whose unpickling runs code: it would create a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return open, (str(self.proof), "w")


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    torch.save({"state_dict": {}, "x": Runs(proof)}, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"could run code.*state_dict.*\(teacher.source=…\)"):
        read_state(tmp_path / "net.pt", "teacher.source")
    assert not proof.exists()


def test_every_damaged_file_gives_one_sentence(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "whole.pt")
    save_file(net().state_dict(), tmp_path / "whole.safetensors")
    for name in ("whole.pt", "whole.safetensors"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pt").touch()
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps([1, 2], protocol=2))
    names = ["cut-whole.pt", "cut-whole.safetensors", "empty.pt", "empty.safetensors"]
    for name in [*names, "text.pt", "pickle.pt", "missing.pt"]:
        with pytest.raises(UserError) as raised:
            read_state(tmp_path / name)
        message = str(raised.value)
        assert name in message
        assert message.endswith("(…weights=…)")
        assert "\n" not in message


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    for content in ({"epoch": 3}, [torch.zeros(2)], {"state_dict": {"epoch": 3}}):
        torch.save(content, tmp_path / "net.pt")
        with pytest.raises(UserError, match="has no tensors"):
            read_state(tmp_path / "net.pt")


def test_a_file_of_ours_loads_into_a_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = net(), net()
    torch.save({"state_dict": source.state_dict()}, tmp_path / "net.pt")
    load_weights(target, tmp_path / "net.pt", "key")
    assert_same(target.state_dict(), source.state_dict())


def test_a_file_brings_the_statistics_its_weights_were_learnt_with(tmp_path: Path) -> None:
    torch.save(net(mean=[0.5]).state_dict(), tmp_path / "net.pt")
    for target in (net(mean=[0.1]), net(mean=None)):
        load_weights(target, tmp_path / "net.pt", "key")
        assert target.prepare.mean.tolist() == [0.5]
        assert target.prepare.std.tolist() == [2.0]


def test_a_file_without_statistics_leaves_the_nets(tmp_path: Path) -> None:
    torch.save(net(mean=None).state_dict(), tmp_path / "net.pt")
    target = net(mean=[0.25])
    load_weights(target, tmp_path / "net.pt", "key")
    assert target.prepare.mean.tolist() == [0.25]


def test_statistics_of_other_channels_are_refused(tmp_path: Path) -> None:
    torch.save(net(mean=[0.5, 0.5, 0.5]).state_dict(), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"prepare.mean \[3\], expected \[1\]"):
        load_weights(net(mean=[0.5]), tmp_path / "net.pt", "key")


def test_another_number_of_classes_is_named_plainly(tmp_path: Path) -> None:
    torch.save(net(classes=10).state_dict(), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"expected weights for 3 classes, .*net.pt has 10 \(key=…"):
        load_weights(net(classes=3), tmp_path / "net.pt", "key")


def test_what_does_not_fit_is_listed_in_part(tmp_path: Path) -> None:
    state = net().state_dict()
    state["trunk.1.weight"] = torch.zeros(5, 9)
    del state["trunk.1.bias"]
    state |= {f"extra{i}": torch.zeros(1) for i in range(12)}
    torch.save(state, tmp_path / "net.pt")
    target = net()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(UserError) as raised:
        load_weights(target, tmp_path / "net.pt", "key")
    message = str(raised.value)
    assert "lacks trunk.1.bias" in message
    assert "has besides extra0, extra1, extra2 and 9 more" in message
    assert "trunk.1.weight [5, 9], expected [5, 4]" in message
    assert_same(target.state_dict(), before)


def test_our_layout_is_told_from_others() -> None:
    assert in_our_layout(net(mean=[0.5]).state_dict())
    assert not in_our_layout({"head.weight": torch.zeros(1), "blocks.0.weight": torch.zeros(1)})
    assert not in_our_layout({"head.weight": torch.zeros(1)})


def test_weights_are_none_pretrained_or_a_file() -> None:
    for weights in ("none", "some/file.pt", Path("file.pt")):
        check_source(weights, library=False)
    check_source("pretrained", library=True)
    with pytest.raises(UserError, match="no pretrained weights"):
        check_source("pretrained", library=False)
    with pytest.raises(UserError, match="got None"):
        check_source(None, library=True)
