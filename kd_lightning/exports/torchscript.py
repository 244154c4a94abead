"""TorchScript, traced: torch can load it without this package, also in C++.

Scripting would refuse the nets, whose inputs are checked in Python. Tracing records one batch; that
other batch sizes work is part of the check of every export.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.exports.graph import Graph

FILES = ("student.torchscript.pt",)


@torch.no_grad()
def write(graph: Graph, folder: Path, calibration: Tensor | None = None) -> None:
    with warnings.catch_warnings():
        # that torch.jit is deprecated, and that checks of the input are constants in a trace
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(graph.module, (graph.example,), check_trace=False)
        torch.jit.save(traced, folder / FILES[0])


def load(folder: Path, graph: Graph, threads: int) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return torch.jit.load(folder / FILES[0], map_location="cpu")
