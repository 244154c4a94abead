"""Student files without a run, for tests."""

from pathlib import Path
from typing import Any

import torch
from helpers import compose
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from kd_lightning.students.architecture import describe_architecture, to_file
from kd_lightning.students.describe import RESIZING, describe_input
from kd_lightning.students.file import write_student

TASKS = {
    "colour": {"channels": 3, "size": 32, "shape": [3, 32, 32]},
    "grey": {"channels": 1, "size": 8, "shape": [1, 8, 8]},
    "series": {"channels": 2, "size": 30, "shape": [2, 30]},
    "one channel": {"channels": 1, "size": 30, "shape": [1, 30]},
}
MADE_UP = {"num_classes": 3, "imagenet_rows": None}


def task_of(kind: str) -> dict[str, Any]:
    """``cfg.task`` of a kind of samples."""
    task = {**MADE_UP, **TASKS[kind]}
    numbers = [0.1 * (channel + 1) for channel in range(task["channels"])]
    inputs = torch.Size(task["shape"]).numel()
    return {**task, "num_inputs": inputs, "mean": numbers, "std": numbers}


def net_config(net: str, kind: str, **arguments: Any) -> dict[str, Any]:
    """A net of ``conf/model``, resolved for a kind of samples."""
    cfg = compose("method=supervised", f"model@method.students.student={net}")
    cfg.task.update(task_of(kind))
    cfg.method.students.student.update(arguments)
    return OmegaConf.to_container(cfg.method.students.student, resolve=True)


def build_random(config: dict[str, Any]) -> nn.Module:
    """The net in eval mode, with random weights and statistics of batch norm."""
    torch.manual_seed(0)
    net = instantiate(config, _convert_="object").eval()
    for name, value in net.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 1.5)
        elif "running_mean" in name:
            value.uniform_(-0.1, 0.1)  # larger ones would leave nothing behind a ReLU
    return net


def info_of(config: dict[str, Any], net: nn.Module, kind: str) -> dict[str, Any]:
    state = net.state_dict()
    return {
        "architecture": describe_architecture(config, state),
        "class_names": ["cat", "dog", "fox"],
        "input": describe_input(OmegaConf.create(task_of(kind)), config, state, RESIZING),
    }


def make_student(folder: Path, config: dict[str, Any], kind: str) -> tuple[nn.Module, Path]:
    """A net, and the student file that is written of it."""
    net = build_random(config)
    info = info_of(config, net, kind)
    return net, write_student(folder, to_file(net.state_dict(), info["architecture"]), info)


def samples(kind: str, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *TASKS[kind]["shape"], generator=generator)
