"""Writes a graph in several formats. Each file is run and compared with PyTorch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.exports.formats import format_module
from kd_lightning.exports.graph import Graph
from kd_lightning.exports.measure import Speed, bytes_of, speed_of
from kd_lightning.exports.parity import CheckedSamples, Parity, check_parity


@dataclass(frozen=True)
class CheckedFile:
    """The files of one format.

    Attributes:
        format: its name.
        files: the names of its files.
        size: of them together, in bytes.
        parity: comparison with PyTorch.
        speed: on the CPU.
    """

    format: str
    files: tuple[str, ...]
    size: int
    parity: Parity
    speed: Speed


def write_checked(
    graph: Graph,
    formats: Sequence[str],
    folder: Path,
    samples: CheckedSamples,
    calibration: Tensor | None,
    batch: Tensor,
) -> list[CheckedFile]:
    """Writes all formats into ``folder``.

    Args:
        samples: for the comparison with PyTorch.
        calibration: samples for int8.
        batch: samples for the throughput.

    Raises:
        UserError: a format cannot express the net, or its file differs from PyTorch.
    """
    files = []
    for name in formats:
        run = write_format(name, graph, folder, calibration)
        parity = check_parity(name, run, graph, samples, exact=name != "int8")
        names = format_module(name).FILES
        speed = speed_of(run, graph.to_input(batch))
        files.append(CheckedFile(name, names, bytes_of(folder, names), parity, speed))
    return files


def write_format(
    name: str, graph: Graph, folder: Path, calibration: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """Writes one format and reads it back, as a function."""
    module = format_module(name)
    try:
        module.write(graph, folder, calibration)
        return module.load(folder, graph, torch.get_num_threads())
    except Exception as error:  # exporters raise anything for a net that they cannot follow
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"this net cannot be written as {name} ({type(error).__name__}: {reason}): nothing is "
            "written, choose another --format"
        ) from error
