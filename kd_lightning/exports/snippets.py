"""The code of a model card: how its files are used. A test runs it."""

from collections.abc import Mapping, Sequence
from typing import Any

from kd_lightning.exports.graph import Graph

KD_LIGHTNING = """\
import kd_lightning
import torch

student = kd_lightning.load("."{allow})  # this folder
{sample}
probabilities = student(batch).softmax(1)
print(student.class_names[probabilities.argmax()])
"""
SAMPLES = {
    "image": """\
image = torch.zeros({channels}, 300, 400, dtype=torch.uint8)  # a decoded image of any size
batch = student.transform()(image).unsqueeze(0)""",
    "series": "batch = torch.zeros(1, {channels}, {size})  # series, not normalized",
}
ONNX = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
{name} = np.zeros(({shape}), np.{dtype})  # see above
({output},) = session.run(["{output}"], {{"{name}": {name}}})
print({output}.argmax(1))
"""
TORCH = """\
import torch

net = {load}
{name} = torch.zeros({shape}, dtype=torch.{dtype})  # see above
print(net({name}).argmax(1))
"""
TORCHSCRIPT = TORCH.replace("{load}", 'torch.jit.load("{file}")')
TORCH_EXPORT = TORCH.replace("{load}", 'torch.export.load("{file}").module()')
OPENVINO = """\
import numpy as np
import openvino

exact = {{"INFERENCE_PRECISION_HINT": "f32"}}  # or it may compute in bfloat16
net = openvino.Core().compile_model("{file}", "CPU", exact)
{name} = np.zeros(({shape}), np.{dtype})  # see above
print(net({name})[0].argmax(1))
"""
OF_FORMATS = {  # the first format that there is
    "ONNX Runtime": {"onnx": ONNX, "int8": ONNX},
    "OpenVINO": {"openvino": OPENVINO},
    "TorchScript": {"torchscript": TORCHSCRIPT},
    "torch.export": {"torch_export": TORCH_EXPORT},
}
TIMM = """\
import timm
import torch

net = timm.create_model("{timm}", {arguments}, checkpoint_path="student.safetensors").eval()
images = torch.zeros(1, {channels}, {size}, {size})  # values from 0 to 1
mean, std = torch.tensor({mean}), torch.tensor({std})
logits = net((images - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1))
"""


def snippets(info: Mapping[str, Any], graph: Graph, files: Mapping[str, Sequence[str]]) -> str:
    """Code for kd_lightning, for each format that there is, and for a net of timm."""
    given = info["input"]
    constructor = info["architecture"].get("constructor", "kd_lightning")
    package = constructor.partition(".")[0]
    allow = "" if package == "kd_lightning" else f', allow=["{package}"]'
    codes = {"kd_lightning": KD_LIGHTNING.format(
        allow=allow, sample=SAMPLES[given["kind"]].format(**given))}  # fmt: skip
    for title, of_format in OF_FORMATS.items():
        if not (there := [name for name in of_format if name in files]):
            continue
        codes[title] = of_format[there[0]].format(
            file=files[there[0]][0],
            name=graph.input_name,
            output=graph.output_name,
            shape=", ".join(map(str, (1, *graph.example.shape[1:]))),
            dtype=str(graph.example.dtype).removeprefix("torch."),
        )
    if "timm" in info["architecture"]:
        codes["timm, whose net normalizes nothing"] = timm_code(info)
    return "\n".join(f"With {name}:\n\n```python\n{code}```\n" for name, code in codes.items())


def timm_code(info: Mapping[str, Any]) -> str:
    given, architecture = info["input"], info["architecture"]
    channels = given["channels"]
    return TIMM.format(
        timm=architecture["timm"],
        arguments=", ".join(f"{k}={v!r}" for k, v in architecture["arguments"].items()),
        channels=channels,
        size=given["net_size"] or given["size"],
        mean=[float(f"{value:.6g}") for value in given["mean"] or [0.0] * channels],
        std=[float(f"{value:.6g}") for value in given["std"] or [1.0] * channels],
    )
