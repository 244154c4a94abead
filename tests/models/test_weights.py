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
    check_weights_choice,
    is_classifier_state,
    load_weights,
    read_state,
    strip_wrapper_prefixes,
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
def test_every_kind_of_file_gives_the_same_tensors(tmp_path: Path, wrap: Callable) -> None:
    state = net().state_dict()
    torch.save(wrap(state), tmp_path / "net.pt")
    assert_same(read_state(tmp_path / "net.pt"), state)


def test_safetensors_are_read(tmp_path: Path) -> None:
    state = net().state_dict()
    save_file(state, tmp_path / "net.safetensors")
    assert_same(read_state(tmp_path / "net.safetensors"), state)


def test_wrapper_prefixes_are_removed_from_names() -> None:
    assert strip_wrapper_prefixes("module.trunk._orig_mod.conv.weight") == "trunk.conv.weight"
    assert strip_wrapper_prefixes("trunk.module.weight") == "trunk.module.weight"


class CreatesFile:
    """An object whose unpickling would create a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return open, (str(self.proof), "w")


def test_code_in_a_checkpoint_raises_an_error_and_does_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "created"
    torch.save({"state_dict": {}, "x": CreatesFile(proof)}, tmp_path / "net.pt")
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


def test_a_file_without_tensors_raises_an_error(tmp_path: Path) -> None:
    for content in ({"epoch": 3}, [torch.zeros(2)], {"state_dict": {"epoch": 3}}):
        torch.save(content, tmp_path / "net.pt")
        with pytest.raises(UserError, match="has no tensors"):
            read_state(tmp_path / "net.pt")


def test_a_saved_classifier_can_be_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = net(), net()
    torch.save({"state_dict": source.state_dict()}, tmp_path / "net.pt")
    load_weights(target, tmp_path / "net.pt", "key")
    assert_same(target.state_dict(), source.state_dict())


def test_the_statistics_of_the_file_are_loaded(tmp_path: Path) -> None:
    torch.save(net(mean=[0.5]).state_dict(), tmp_path / "net.pt")
    for target in (net(mean=[0.1]), net(mean=None)):
        load_weights(target, tmp_path / "net.pt", "key")
        assert target.prepare.mean.tolist() == [0.5]
        assert target.prepare.std.tolist() == [2.0]


def test_a_file_without_statistics_keeps_those_of_the_net(tmp_path: Path) -> None:
    torch.save(net(mean=None).state_dict(), tmp_path / "net.pt")
    target = net(mean=[0.25])
    load_weights(target, tmp_path / "net.pt", "key")
    assert target.prepare.mean.tolist() == [0.25]


def test_another_number_of_channels_raises_an_error(tmp_path: Path) -> None:
    torch.save(net(mean=[0.5, 0.5, 0.5]).state_dict(), tmp_path / "net.pt")
    with pytest.raises(
        UserError, match=r"expected weights for 1 input channels, .*net.pt has 3 \(key="
    ):
        load_weights(net(mean=[0.5]), tmp_path / "net.pt", "key")


def test_another_number_of_classes_raises_an_error(tmp_path: Path) -> None:
    torch.save(net(classes=10).state_dict(), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"expected weights for 3 classes, .*net.pt has 10 \(key=…"):
        load_weights(net(classes=3), tmp_path / "net.pt", "key")


def test_the_first_names_that_do_not_fit_are_listed(tmp_path: Path) -> None:
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
    assert "net.pt do not fit the net: missing: trunk.1.bias; " in message
    assert "unexpected: extra0, extra1, extra2 and 9 more; " in message
    assert "of another shape: trunk.1.weight [5, 9], expected [5, 4] (key=…)" in message
    assert_same(target.state_dict(), before)


def test_the_state_of_a_classifier_is_recognized() -> None:
    assert is_classifier_state(net(mean=[0.5]).state_dict())
    assert not is_classifier_state(
        {"head.weight": torch.zeros(1), "blocks.0.weight": torch.zeros(1)}
    )
    assert not is_classifier_state({"head.weight": torch.zeros(1)})


def test_weights_are_none_pretrained_or_a_file() -> None:
    for weights in ("none", "some/file.pt", Path("file.pt")):
        check_weights_choice(weights, allow_pretrained=False)
    check_weights_choice("pretrained", allow_pretrained=True)
    with pytest.raises(UserError, match="no pretrained weights"):
        check_weights_choice("pretrained", allow_pretrained=False)
    with pytest.raises(UserError, match="got None"):
        check_weights_choice(None, allow_pretrained=True)
