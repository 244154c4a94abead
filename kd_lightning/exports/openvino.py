"""OpenVINO's format, converted from ONNX, with weights in float32. Run by OpenVINO on the CPU."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kd_lightning.exports.graph import Graph
from kd_lightning.exports.onnx import write_onnx

FILES = ("student.xml", "student.bin")


def write(graph: Graph, folder: Path, calibration: Tensor | None = None) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "student.onnx"
        write_onnx(graph, path)
        model = openvino.Core().read_model(path)
        openvino.save_model(model, folder / FILES[0], compress_to_fp16=False)


def load(folder: Path, graph: Graph, threads: int) -> Callable[[Tensor], Tensor]:
    import openvino

    # on some processors its own choice is bfloat16, which is no check of the file
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(folder / FILES[0], "CPU", settings)
    return lambda x: torch.from_numpy(compiled(x.numpy())[0].copy())
