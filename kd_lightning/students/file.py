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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import atomic_write, write_json
from kd_lightning.models.weights import first_line

FORMAT = 1
METADATA = "kd_lightning"
WEIGHTS_FILE = "student.safetensors"
JSON_FILE = "student.json"
NEEDED = ("architecture", "class_names", "input")


def write_student(folder: Path, state: Mapping[str, Tensor], info: Mapping[str, Any]) -> Path:
    """Writes both files into ``folder`` and returns the path of the weights.

    Weights become float32; a tensor that several names share is written under each of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = {"format": FORMAT, **info}
    tensors = {name: to_stored(value) for name, value in state.items()}
    metadata = {METADATA: json.dumps(info), "format": "pt"}  # "pt" is asked for by transformers
    with atomic_write(folder / WEIGHTS_FILE) as unfinished:
        save_file(tensors, unfinished, metadata=metadata)
    write_json(folder / JSON_FILE, info)
    return folder / WEIGHTS_FILE


def to_stored(value: Tensor) -> Tensor:
    """A contiguous copy on the CPU; numbers with a point in float32."""
    dtype = torch.float32 if value.is_floating_point() else value.dtype
    return value.detach().to("cpu", dtype, copy=True).contiguous()


def read_info(path: Path) -> dict[str, Any]:
    """The description in a student file.

    Raises:
        UserError: the file is damaged, is no student file, or has another format; or a weight is
            not finite.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(METADATA)
            bad = [name for name in file.keys() if not is_finite(file.get_tensor(name))]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a complete safetensors file: {first_line(error)}"
        ) from error
    if text is None:
        raise UserError(
            f"{path} holds weights, but is no student file: a run writes one for each student into "
            f"its folder students/<student>/{WEIGHTS_FILE}"
        )
    info = parse_info(text, path)
    if bad:
        raise UserError(f"the weights {bad[0]} in {path} are not all finite: the file is unusable")
    return info


def is_finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


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
    if missing := [key for key in NEEDED if key not in info]:
        raise UserError(f"the description in {path} lacks {', '.join(missing)}")
    return info
