from pathlib import Path

import pytest
import torch
from torch import nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.models.weights import check_weights_choice, load_weights


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


def test_a_file_of_another_program_gets_no_names_of_this_package(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "net.pt")
    with pytest.raises(UserError) as raised:
        load_weights(net(), tmp_path / "net.pt", "key")
    message = str(raised.value)
    assert "missing: 1.weight, 1.bias, head.weight" in message
    assert "unexpected: conv1.weight" in message
    assert "trunk" not in message


def test_a_file_without_the_trunks_prefix_is_told_what_is_missing(tmp_path: Path) -> None:
    bare = {name.removeprefix("trunk."): value for name, value in net().state_dict().items()}
    torch.save(bare, tmp_path / "net.pt")
    with pytest.raises(UserError) as raised:
        load_weights(net(), tmp_path / "net.pt", "key")
    assert "missing: trunk.1.weight, trunk.1.bias; unexpected: 1.weight, 1.bias" in str(
        raised.value
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    state = net().state_dict()
    state["trunk.1.bias"][2] = value
    state["head.weight"].fill_(value)
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"2 of 4 tensors in .*net.pt have values that are not finit"
                       r"e, the first is module.trunk.1.bias: .*\(key=…\)"):  # fmt: skip
        load_weights(net(), tmp_path / "net.pt", "key")


def test_the_head_takes_the_number_of_classes_of_the_file_if_it_may(tmp_path: Path) -> None:
    torch.save(net(classes=7).state_dict(), tmp_path / "net.pt")
    target = net(classes=3)
    load_weights(target, tmp_path / "net.pt", "key", any_classes=True)
    assert target.head.out_features == len(target.head.weight) == 7


def test_statistics_beside_the_weights_are_loaded_too(tmp_path: Path) -> None:
    content = {"model": net().state_dict(), "mean": [0.25, 0.75], "std": [1.0, 2.0]}
    torch.save(content, tmp_path / "net.pt")
    two, three = net(mean=[0.1] * 2), net(mean=[0.1] * 3)
    for target, channels in ((two, 2), (three, 3)):
        target.prepare.in_chans = channels
        facts = load_weights(target, tmp_path / "net.pt", "key").facts
    assert two.prepare.mean.tolist() == [0.25, 0.75]
    assert three.prepare.mean.tolist() == pytest.approx([0.1] * 3)  # the file's are not for it
    assert facts.mean is None


def test_equal_copies_in_a_file_are_no_choice(tmp_path: Path) -> None:
    state = net().state_dict()
    torch.save({"first": state, "second": state}, tmp_path / "net.pt")
    target = net()
    load_weights(target, tmp_path / "net.pt", "key")
    assert_same(target.state_dict(), state)


def test_a_key_that_begins_like_another_means_the_exact_one(tmp_path: Path) -> None:
    states = {"student": net().state_dict(), "student.old": net().state_dict()}
    torch.save(states, tmp_path / "net.pt")
    target = net()
    load_weights(target, tmp_path / "net.pt", "key", weights_key="student")
    assert_same(target.state_dict(), states["student"])


def test_weights_are_none_pretrained_or_a_file() -> None:
    for weights in ("none", "some/file.pt", Path("file.pt")):
        check_weights_choice(weights, allow_pretrained=False)
    check_weights_choice("pretrained", allow_pretrained=True)
    with pytest.raises(UserError, match="no pretrained weights"):
        check_weights_choice("pretrained", allow_pretrained=False)
    with pytest.raises(UserError, match="got None"):
        check_weights_choice(None, allow_pretrained=True)
