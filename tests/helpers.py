"""What tests build on: the choices there are, tiny nets, composing a configuration."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from hydra.utils import get_class
from omegaconf import DictConfig
from torch import Tensor, nn

from kd_lightning.config import command_line
from kd_lightning.config.command_line import CONF
from kd_lightning.data.classification import ClassificationData
from kd_lightning.data.loading.chosen import batches_of
from kd_lightning.models.classifier import Classifier, Prepare

METHODS = sorted(path.stem for path in (CONF / "method").glob("[!_]*.yaml"))
DATA = sorted(path.stem for path in (CONF / "data").glob("[!_]*.yaml"))

# the files of conf/model whose nets take series only
SERIES_NETS = ("fcn", "fcn_half", "inception_time", "resnet1d")

# A few seconds of anything: made-up data, small nets, two epochs.
TINY = (
    "data=synthetic",
    "data.num_train=96",
    "data.num_test=32",
    "data.batch_size=16",
    "trainer.max_epochs=2",
    "teacher.trainer.max_epochs=1",
    "teacher.check=warn",  # after one epoch a teacher is near chance
    "hardware=cpu",
    "callbacks=quiet",
    "logger=none",
)


# Presets whose rows all take a step in sweeps/test_studies.py
STEPPED = [
    *("biovid_loso", "cifar100", "cifar100_pairs", "dual_fashion_gpu", "har", "imagenet100_cmc"),
    *("imagenet100_kaggle", "ucr_archive"),
]

# Methods of the tests, which use all that the contract has.
THROWAWAY_CONF = Path(__file__).parent / "methods" / "throwaway" / "conf"
THROWAWAY = sorted(path.stem for path in (THROWAWAY_CONF / "method").glob("*.yaml"))


def compose(*overrides: str) -> DictConfig:
    """A configuration of its own, composed once for all tests of a process."""
    return _composed(overrides).copy()


@cache
def _composed(overrides: Sequence[str]) -> DictConfig:
    return command_line.compose(overrides, THROWAWAY_CONF)


def with_teacher(methods: list[str]) -> list[str]:
    """Those of some methods that have a teacher, by their files: composing takes time."""
    return [name for name in methods if "@teacher: " in file_of(name).read_text()]


def file_of(method: str) -> Path:
    folders = (CONF, THROWAWAY_CONF)
    return next(p for f in folders if (p := f / "method" / f"{method}.yaml").exists())


def class_of(method: str) -> type:
    (target,) = re.findall(r"^_target_: (\S+)", file_of(method).read_text(), re.MULTILINE)
    return get_class(target)


DISTILLERS = with_teacher(METHODS)


# Nets for methods that need feature maps, which the default nets of made-up data do not have.
OF_MAPS = {
    "knowledge_review": ["model@method.teacher=resnet8", "model@method.students.student=resnet8"],
    "student_friendly": ["model@method.students.student=resnet8"],
    "teacher_evolution": ["model@method.students.student=resnet8"],
    "student_oriented": ["model@method.students.student=resnet8", "model@method.teacher=resnet8"],
}


def of_method(method: str, overrides: list[str]) -> list[str]:
    """``overrides`` without those of a teacher, where the method has none, and with nets that the
    method can take.
    """
    has_teacher = method in with_teacher([method])
    kept = [o for o in overrides if has_teacher or not o.startswith("teacher.")]
    return [*kept, *OF_MAPS.get(method, [])]


def net(
    inputs: int = 12, features: int = 8, classes: int = 3, *, dropout: float = 0.0, hidden: int = 0
) -> Classifier:
    """A tiny classifier of flat inputs, without batch norm."""
    layers: list[nn.Module] = [nn.Flatten()]
    if hidden:
        layers += [nn.Linear(inputs, hidden), nn.ReLU()]
    layers += [nn.Linear(hidden or inputs, features), nn.Tanh()]
    return Classifier(
        trunk=nn.Sequential(*layers), head=nn.Linear(features, classes), dropout=dropout
    )


def sgd(lr: float = 0.1) -> Callable:
    return lambda groups: torch.optim.SGD(groups, lr=lr)


ROOT = Path(__file__).parent.parent
# What people read, by its place in the repository.
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}


def ridge_net(
    data: ClassificationData, *, prepare: Prepare | None = None, trunk: nn.Module | None = None
) -> Classifier:
    """A linear classifier of features that is fitted on train in a moment, in eval mode.

    Args:
        prepare: of its input; None: with the statistics of the data.
        trunk: gives the features; None: the input itself.
    """
    x, y = map(torch.cat, zip(*batches_of(data, data.parts["train"]), strict=True))
    net = Classifier(
        prepare=prepare or Prepare(data.mean, data.std),
        trunk=trunk or nn.Flatten(),
        head=nn.Linear(1, data.num_classes),
        dropout=0.0,
    )
    with torch.no_grad():
        x = net.features(x).double()
        mean = x.mean(0)
        weights = torch.linalg.solve(
            (x - mean).T @ (x - mean) + len(x) / 10 * torch.eye(x.shape[1]),
            (x - mean).T @ nn.functional.one_hot(y, data.num_classes).double(),
        )
        shares = y.bincount(minlength=data.num_classes) / len(x)
        net.head.weight = nn.Parameter(weights.T.float())
        net.head.bias = nn.Parameter((shares - mean @ weights).float())
    return net.eval()


def with_order(net: nn.Module, order: Tensor) -> nn.Module:
    """The net whose output i is for the class ``order[i]`` of the data."""
    with torch.no_grad():
        net.head.weight.copy_(net.head.weight[order])
        net.head.bias.copy_(net.head.bias[order])
    return net
