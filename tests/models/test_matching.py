"""A net's weights are found under any prefix, and its head under any usual name."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.models.classifier import Classifier, Prepare
from kd_lightning.models.matching import Fit, fits_of


class Library(nn.Module):
    """A net as a library has it, without its head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)


def classifier(classes: int = 5, library_head: str | None = "fc") -> Classifier:
    net = Classifier(
        prepare=Prepare([0.5] * 3, [0.2] * 3),
        trunk=Library(),
        head=nn.Linear(4, classes),
        dropout=0.0,
    )
    net.library_head = library_head
    return net


def library_state(head: str = "fc", classes: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(1)
    linear = nn.Linear(4, classes)
    of_head = {f"{head}.{name}": value for name, value in linear.state_dict().items()}
    return {**Library().state_dict(), **of_head}


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def the_fit(state: Mapping[str, Tensor], net: Classifier | None = None) -> Fit:
    (fit,) = fits_of(net or classifier(), "", state)
    return fit


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "model.", "net.", "module.", "backbone.", "encoder.", "student.", "a.0.b."),
        *("module.module.model.", "model.net.module."),
    ],
)
def test_any_prefix_is_found(prefix: str) -> None:
    state = library_state()
    fit = the_fit(prefixed(prefix, state) | {"loss.weight": torch.ones(2)} if prefix else state)
    assert fit.prefix == prefix
    assert torch.equal(fit.state["trunk.conv.weight"], state["conv.weight"])
    assert torch.equal(fit.state["head.bias"], state["fc.bias"])
    assert fit.unexpected == []
    assert fit.passed_over == (["loss.weight"] if prefix else [])


@pytest.mark.parametrize(
    "head", ["classifier", "head", "head.fc", "linear", "classifier.1", "last_linear"]
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_head_under_another_name_is_found(head: str, prefix: str) -> None:
    state = library_state(head)
    fit = the_fit(prefixed(prefix, state))
    assert fit.names["head.weight"] == f"{prefix}{head}.weight"
    assert torch.equal(fit.state["head.bias"], state[f"{head}.bias"])


def test_a_head_with_dropout_before_its_layer_is_found() -> None:
    fit = the_fit(library_state("fc.1"))
    assert {name for name in fit.names if name.startswith("head.")} == {"head.weight", "head.bias"}
    assert not fit.unexpected


def test_a_head_beside_the_backbone_is_found() -> None:
    state = library_state("linear")
    moved = {n if n.startswith("linear") else f"backbone.{n}": v for n, v in state.items()}
    fit = the_fit(moved | {"projection.weight": torch.ones(8, 4)})
    assert fit.names["head.weight"] == "linear.weight"
    assert fit.passed_over == ["projection.weight"]


def test_no_head_is_guessed() -> None:
    body = Library().state_dict()
    two = {"linear.weight": torch.ones(5, 4), "classifier.weight": torch.ones(5, 4)}
    bias = {"linear.bias": torch.ones(5), "classifier.bias": torch.ones(5)}
    for state in (body, body | two | bias, body | {"head.weight": torch.ones(5, 9)}):
        assert "head.weight" not in the_fit(state).state


def test_a_hidden_layer_of_a_deeper_head_is_not_passed_over() -> None:
    state = library_state("classifier.1") | {"classifier.4.weight": torch.ones(3, 5)}
    assert the_fit(state).unexpected == ["classifier.4.weight"]
    moved = {n if n.startswith("cl") else f"backbone.{n}": v for n, v in state.items()}
    assert the_fit(moved).unexpected == ["classifier.4.weight"]


def test_a_pointwise_convolution_is_a_head() -> None:
    state = library_state()
    state["fc.weight"] = state["fc.weight"][..., None, None]
    assert the_fit(state).state["head.weight"].shape == (5, 4)


def test_more_of_a_net_under_its_prefix_is_unexpected() -> None:
    state = prefixed("model.", library_state() | {"layer9.weight": torch.ones(2)})
    fit = the_fit(state | {"criterion.weight": torch.ones(5)})
    assert fit.unexpected == ["model.layer9.weight"]
    assert fit.passed_over == ["criterion.weight"]


def test_counts_of_batches_are_not_needed() -> None:
    state = {n: v for n, v in library_state().items() if not n.endswith("num_batches_tracked")}
    assert "trunk.norm.weight" in the_fit(state | {"total_ops": torch.ones(1)}).state
    assert the_fit(state | {"total_ops": torch.ones(1)}).unexpected == []


def test_two_nets_in_one_file_are_two_fits() -> None:
    state = prefixed("student.", library_state()) | prefixed("teacher.", library_state())
    fits = fits_of(classifier(), "state_dict", state)
    assert [fit.where for fit in fits] == ["state_dict.student", "state_dict.teacher"]
    assert [fit.names["head.bias"] for fit in fits] == ["student.fc.bias", "teacher.fc.bias"]


def test_other_shapes_are_no_fit() -> None:
    state = library_state()
    state["conv.weight"] = torch.ones(4, 1, 3, 3)
    assert fits_of(classifier(), "", state) == []


def test_names_of_this_package_come_first() -> None:
    net = classifier()
    fit = the_fit(net.state_dict(), net)
    assert fit.naming.is_own
    assert fit.unexpected == fit.passed_over == []
    assert {"prepare.mean", "prepare.std", "head.weight"} <= fit.state.keys()
    inside = the_fit(prefixed("students.a.", net.state_dict()), net)
    assert inside.names["prepare.mean"] == "students.a.prepare.mean"


@pytest.mark.parametrize("shape", [(3,), (1, 3, 1, 1)])
def test_a_normalization_in_front_of_the_net_is_its_statistics(shape: tuple[int, ...]) -> None:
    front = {"0.mean": torch.full(shape, 0.1), "0.std": torch.full(shape, 0.2)}
    fit = the_fit(prefixed("1.", library_state()) | front)
    assert fit.state["prepare.mean"].tolist() == pytest.approx([0.1] * 3)
    assert fit.state["prepare.std"].shape == (3,)
    other = {"0.mean": torch.ones(7), "0.std": torch.ones(7)}
    assert "prepare.mean" not in the_fit(prefixed("1.", library_state()) | other).state
