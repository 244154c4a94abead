"""A student file: weights in safetensors, and in its metadata everything needed to use them.

``student.safetensors`` stands by itself: the metadata under the key ``kd_lightning`` are JSON
(``describe.py``). ``student.json`` beside it is the same text, for people. Reading a file executes
nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import write_json
from kd_lightning.base.tensor_files import read_tensors, write_tensors

FORMAT = 1
METADATA = "kd_lightning"
WEIGHTS_FILE = "student.safetensors"
JSON_FILE = "student.json"
# What must be known about the samples that the net takes (``describe.describe_input``).
INPUT_KEYS = {
    *("kind", "channels", "size", "mean", "std", "net_size", "net_interpolation"),
    *("resize", "crop_fraction", "interpolation", "exif"),
}


def write_student(folder: Path, state: Mapping[str, Tensor], info: Mapping[str, Any]) -> Path:
    """Writes both files into ``folder`` and returns the path of the weights.

    Weights become float32; a tensor that several names share is written under each of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = {"format": FORMAT, **info}
    tensors = {name: to_stored(value) for name, value in state.items()}
    metadata = {METADATA: json.dumps(info), "format": "pt"}  # "pt" is asked for by transformers
    write_tensors(folder / WEIGHTS_FILE, tensors, metadata)
    write_json(folder / JSON_FILE, info)
    return folder / WEIGHTS_FILE


def to_stored(value: Tensor) -> Tensor:
    """A contiguous copy on the CPU; numbers with a point in float32."""
    dtype = torch.float32 if value.is_floating_point() else value.dtype
    return value.detach().to("cpu", dtype, copy=True).contiguous()


def read_student(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description in a student file, and its tensors.

    Raises:
        UserError: the file is damaged (``Damaged``), is no student file, or has another format; or
            a weight is not finite.
    """
    state, metadata = read_tensors(path)
    text = metadata.get(METADATA)
    if text is None:
        raise UserError(
            f"{path} holds weights, but is no student file: a run writes one for each student into "
            f"its folder students/<student>/{WEIGHTS_FILE}"
        )
    info = parse_info(text, path)
    for name, value in state.items():
        if not value.isfinite().all():
            raise UserError(f"the weights {name} in {path} are not all finite")
    return info, state


def parse_info(text: str, path: Path) -> dict[str, Any]:
    """The description, checked as far as it is needed to build the net."""
    try:
        info = json.loads(text)
    except ValueError as error:
        raise UserError(f"the description in {path} is no JSON: {error}") from error
    found = info.get("format") if isinstance(info, dict) else None
    if found != FORMAT:
        raise UserError(
            f"{path} has format {found}, this version of kd_lightning reads format {FORMAT}"
        )
    check_info(info, path)
    return info


def check_info(info: Mapping[str, Any], path: Path) -> None:
    """Raises ``UserError`` for a description that lacks what is needed to build the net."""
    architecture, names, given = (info.get(key) for key in ("architecture", "class_names", "input"))
    valid = {
        "architecture": is_architecture(architecture),
        "class_names": isinstance(names, list) and all(isinstance(name, str) for name in names),
        "input": isinstance(given, dict) and given.keys() >= INPUT_KEYS,
    }
    if faults := [key for key, is_valid in valid.items() if not is_valid]:
        raise UserError(f"the description in {path} has no valid {' and '.join(faults)}")
    count = architecture["arguments"].get("num_classes", len(names))
    if count != len(names):
        raise UserError(f"{path} has {len(names)} class names for a net of {count} classes")


def is_architecture(value: Any) -> bool:
    """Whether it has one of the two forms of ``architecture.py``."""
    if not isinstance(value, dict) or not isinstance(value.get("arguments"), dict):
        return False
    if "timm" not in value:
        return isinstance(value.get("constructor"), str)
    counts = [value["arguments"].get(key) for key in ("num_classes", "in_chans")]
    names = [value["timm"], value.get("head")]
    return all(isinstance(n, int) for n in counts) and all(isinstance(n, str) for n in names)
