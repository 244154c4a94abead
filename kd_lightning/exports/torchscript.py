"""TorchScript, traced: torch can load it without this package, also in C++.

Tracing records one batch, also of nets that cannot be scripted; that other batch sizes work is part
of the check of every export.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import torch
from torch import Tensor

from kd_lightning.base.files import atomic_write
from kd_lightning.exports.graph import Graph

FILES = ("student.torchscript.pt",)


@torch.no_grad()
def write(graph: Graph, folder: Path, calibration: Tensor | None = None) -> None:
    with warnings.catch_warnings():
        # that torch.jit is deprecated, and that checks of the input are constants in a trace
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(graph.module, (graph.example,), check_trace=False)
        torch.jit.save(traced, folder / FILES[0])
    remove_debug_files(folder / FILES[0])


def remove_debug_files(path: Path) -> None:
    """Removes what only error messages need: source code, with its paths on this machine."""
    with atomic_write(path) as temporary, ZipFile(path) as old, ZipFile(temporary, "w") as new:
        for name in old.namelist():
            if not name.endswith(".debug_pkl"):
                new.writestr(name, old.read(name))


def load(folder: Path, graph: Graph, threads: int) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return torch.jit.load(folder / FILES[0], map_location="cpu")
