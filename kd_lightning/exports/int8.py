"""ONNX with 8-bit weights and activations: static quantization after training, by ONNX Runtime.

Convolutions and matrix products are quantized, and nothing else: preprocessing, sums and softmax
stay in float32. Weights are int8 with a scale for each channel, activations uint8 with one range,
the smallest and the largest value over the calibration samples. On x86 uint8 activations have
fast instructions, int8 ones do not.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from kd_lightning.exports.graph import Graph
from kd_lightning.exports.onnx import open_session, write_onnx

FILES = ("student.int8.onnx",)
QUANTIZED = ["Conv", "Gemm", "MatMul"]
CALIBRATION_BATCH = 32


def write(graph: Graph, folder: Path, calibration: Tensor | None = None) -> None:
    """Quantizes with real samples (N, *shape), before preprocessing."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    assert calibration is not None
    with tempfile.TemporaryDirectory() as temporary:
        path, prepared = (str(Path(temporary) / name) for name in ("float.onnx", "prepared.onnx"))
        write_onnx(graph, Path(path))
        quant_pre_process(path, prepared)
        quantize_static(
            prepared,
            folder / FILES[0],
            Batches(graph, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    add_facts(folder / FILES[0], graph.about)


def load(folder: Path, graph: Graph, threads: int) -> Callable[[Tensor], Tensor]:
    return open_session(folder / FILES[0], graph, threads)


class Batches:
    """Calibration samples as ONNX Runtime asks for them: batch by batch, then None."""

    def __init__(self, graph: Graph, samples: Tensor) -> None:
        self.batches: Iterator[dict] = (
            {graph.input_name: graph.to_input(batch).numpy()}
            for batch in samples.split(CALIBRATION_BATCH)
        )

    def get_next(self) -> dict | None:
        return next(self.batches, None)


def add_facts(path: Path, about: dict[str, str]) -> None:
    """Writes the graph's facts into the quantized file, which may have lost them."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, about)
    onnx.save(model, path)
