"""ONNX, by ``torch.onnx.export`` with ``torch.export``; any batch size. Run by ONNX Runtime."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.exports.graph import Graph

OPSET = 18  # the first in which a smaller image is resized with antialiasing, as torch does it
FILES = ("student.onnx",)


def write(graph: Graph, folder: Path, calibration: Tensor | None = None) -> None:
    write_onnx(graph, folder / FILES[0])


def load(folder: Path, graph: Graph, threads: int) -> Callable[[Tensor], Tensor]:
    return open_session(folder / FILES[0], graph, threads)


def write_onnx(graph: Graph, path: Path) -> None:
    """Writes one file, with the weights and the graph's facts in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own code
        program = torch.onnx.export(
            graph.module,
            (graph.example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=[graph.input_name],
            output_names=[graph.output_name],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # lines of source code, with their paths on this machine
    program.model.metadata_props.update(graph.about)
    program.save(path)


def open_session(path: Path, graph: Graph, threads: int) -> Callable[[Tensor], Tensor]:
    """A function that runs an ONNX file on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        (output,) = session.run([graph.output_name], {graph.input_name: x.numpy()})
        return torch.from_numpy(output)

    return run
