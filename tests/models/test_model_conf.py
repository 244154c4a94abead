"""Every net in conf/model/ can be composed, built and trained for a step."""

import inspect
from collections.abc import Iterator
from functools import cache

import hydra
import pytest
import torch
from helpers import SERIES_NETS
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig

from kd_lightning.config.command_line import CONF
from kd_lightning.models.classifier import Classifier

MODELS = CONF / "model"
NETS = sorted(path.stem for path in MODELS.glob("[!_]*.yaml"))
DATA = sorted(path.stem for path in (CONF / "data").glob("[!_]*.yaml"))

TASKS = {
    "colour": {"channels": 3, "size": 32, "shape": (3, 32, 32)},
    "grey": {"channels": 1, "size": 28, "shape": (1, 28, 28)},
    "series": {"channels": 3, "size": 64, "shape": (3, 64)},
}
SERIES_DATA = ("ucr", "har", "biovid")


def kinds(net: str) -> list[str]:
    """The kinds of input that a net is tested with. The roles are tested with grey images."""
    if net == "mlp":
        return list(TASKS)
    return ["series"] if net in SERIES_NETS else ["colour"]


def roles(data: str) -> tuple[str, ...]:
    return tuple((MODELS / data / f"{role}.yaml").read_text() for role in ("teacher", "a", "b"))


# Of several data sets with equal roles only the first is tested.
ROLES = {roles(data): data for data in reversed(DATA)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A configuration with one net and the facts of a data set."""
    directory = tmp_path_factory.mktemp("conf")
    (directory / "config.yaml").write_text(
        f"""
defaults:
  - _self_
  - /model@method.students.a: resnet8
hydra: {{searchpath: ["file://{CONF}"]}}
task:
  {{num_classes: 5, channels: 0, size: 0, shape: [], num_inputs: 0, mean: [], std: [],
   imagenet_rows: null}}
"""
    )
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(directory), version_base="1.3"):
        yield


@cache
def compose(net: str, kind: str) -> DictConfig:
    task = TASKS[kind]
    channels = task["channels"]
    facts = {
        "channels": channels,
        "size": task["size"],
        "shape": list(task["shape"]),
        "num_inputs": torch.Size(task["shape"]).numel(),
        "mean": [0.5] * channels,
        "std": [0.25] * channels,
    }
    overrides = [f"task.{key}={value}" for key, value in facts.items()]
    if net == "timm":
        overrides.append("method.students.a.name=test_resnet")
    config = hydra.compose("config", [f"model@method.students.a={net}", *overrides])
    return config.method.students.a


def build(net: str, kind: str) -> Classifier:
    torch.manual_seed(0)
    config = compose(net, kind)
    if config.get("weights") == "pretrained":
        config.weights = "none"  # tests have no network
    return instantiate(config, _convert_="object")


def batch(kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, *TASKS[kind]["shape"], generator=generator)


def check_outputs_and_gradients(net: Classifier, x: torch.Tensor) -> None:
    logits, features = net.eval()(x)
    assert logits.shape == (2, 5)
    assert features.shape == (2, net.head.in_features)
    assert torch.equal(net(x).logits, logits)
    logits, features = net.train()(x)
    (logits.sum() + features.sum()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None]
    assert not without
    assert net.prepare.mean.tolist() == [0.5] * x.shape[1]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("name", "kind"), [(net, kind) for net in NETS for kind in kinds(net)])
def test_every_net_builds_and_learns(name: str, kind: str) -> None:
    check_outputs_and_gradients(build(name, kind), batch(kind))


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("data", ROLES.values())
def test_roles_build_and_students_are_smaller_than_their_teacher(data: str) -> None:
    kind = "series" if data in SERIES_DATA else "grey"
    sizes = {}
    for role in ("teacher", "a", "b"):
        net = build(f"{data}/{role}", kind)
        check_outputs_and_gradients(net, batch(kind))
        sizes[role] = sum(parameter.numel() for parameter in net.parameters())
    assert max(sizes["a"], sizes["b"]) < sizes["teacher"] / 2


@pytest.mark.parametrize("data", DATA)
def test_every_data_set_has_a_teacher_and_two_different_students(data: str) -> None:
    bodies = {text.split("\n", 1)[1] for text in roles(data)}
    assert len(bodies) == 3


@pytest.mark.usefixtures("root")
def test_images_that_are_too_small_raise_an_error_when_the_net_is_built() -> None:
    with pytest.raises(InstantiationException, match=r"cannot take images of 28 x 28.*input_size"):
        build("convnext_atto", "grey")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", NETS)
def test_every_net_has_the_common_keys_and_every_argument(name: str) -> None:
    config = compose(name, kinds(name)[0])
    common = {"num_classes", "in_chans", "weights", "dropout", "block_dropout", "mean", "std"}
    assert common <= config.keys()
    assert (config.weights, config.dropout, config.block_dropout) == ("none", 0, 0)
    parameters = inspect.signature(get_method(config._target_)).parameters.values()
    named = {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}
    assert named <= config.keys()
