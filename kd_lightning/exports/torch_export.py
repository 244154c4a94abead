"""The format of ``torch.export``, for any batch size: torch can load it without this package."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.exports.graph import Graph

FILES = ("student.pt2",)


def write(graph: Graph, folder: Path, calibration: Tensor | None = None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own code
        program = torch.export.export(
            graph.module,
            (graph.example,),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # has paths of this machine
        torch.export.save(program, folder / FILES[0])


def load(folder: Path, graph: Graph, threads: int) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.load(folder / FILES[0]).module()
