"""Files of weights: safetensors, of any net and of a student, and of torch.save."""

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.torture.file_kind import Kind, Numbers
from kd_lightning.models.checkpoints import read_checkpoint
from kd_lightning.students.file import read_student, write_student

TORCH_DTYPES = {"F32": "<f4", "I64": "<i8"}  # safetensors' names of those in the examples


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"a.weight": torch.randn(3, 4), "a.bias": torch.randn(3), "steps": torch.tensor(7)}


def write_safetensors(root: Path) -> None:
    save_file(weights(), root / "made.safetensors", {"kd_lightning": '{"class_names": ["a", "b"]}'})


def write_torch(root: Path) -> None:
    content = {"state_dict": weights(), "epoch": 3, "hyper_parameters": {"classes": ["a", "b"]}}
    torch.save(content, root / "made.ckpt")


def write_old_torch(root: Path) -> None:
    torch.save(weights(), root / "made.pth", _use_new_zipfile_serialization=False)


def read_weights(root: Path, file: Path) -> Numbers:
    checkpoint = read_checkpoint(file)
    (state,) = checkpoint.states.values()
    return {name: value.numpy() for name, value in state.items()}


def slow_safetensors(file: Path) -> Numbers:
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    header.pop("__metadata__", None)
    numbers = {}
    for name, of_tensor in header.items():
        start, end = of_tensor["data_offsets"]
        values = np.frombuffer(body[start:end], TORCH_DTYPES[of_tensor["dtype"]])
        numbers[name] = values.reshape(of_tensor["shape"])
    return numbers


def slow_torch(file: Path) -> Numbers:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if bad := archive.testzip():
                raise ValueError(f"the checksum of {bad} is wrong")
    content = torch.load(file, weights_only=True)
    state = content.get("state_dict", content)
    return {name: value.numpy() for name, value in state.items()}


def write_student_file(root: Path) -> None:
    input_keys = ("mean", "std", "net_size", "net_interpolation", "resize", "crop_fraction")
    given = {"kind": "series", "channels": 1, "size": 6, "exif": False, "interpolation": None}
    info = {
        "architecture": {"constructor": "kd_lightning.models.perceptron.mlp", "arguments": {}},
        "class_names": ["a", "b"],
        "input": dict.fromkeys(input_keys) | given,
    }
    write_student(root, weights(), info)


def read_student_file(root: Path, file: Path) -> Numbers:
    info, state = read_student(file)
    return {"info": json.dumps(info), **{name: value.numpy() for name, value in state.items()}}


def slow_student(file: Path) -> Numbers:
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    info = json.dumps(json.loads(header["__metadata__"]["kd_lightning"]))
    return {"info": info, **slow_safetensors(file)}


KINDS = {
    "safetensors": Kind(
        "safetensors", write_safetensors, ["made.safetensors"], read_weights, slow_safetensors
    ),
    "safetensors, student": Kind(
        "safetensors", write_student_file, ["student.safetensors"], read_student_file, slow_student
    ),
    "ckpt": Kind("zip", write_torch, ["made.ckpt"], read_weights, slow_torch),
    "pth, before torch 1.6": Kind(
        "binary", write_old_torch, ["made.pth"], read_weights, slow_torch
    ),
}
