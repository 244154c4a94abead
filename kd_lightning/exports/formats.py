"""The formats, and the packages that each needs. Nothing heavy is imported here."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from kd_lightning.base.errors import UserError, unknown


class Format(NamedTuple):
    """What a format needs besides torch.

    Attributes:
        packages: that are imported.
        extras: of kd_lightning, which install them.
    """

    packages: tuple[str, ...] = ()
    extras: str = ""


ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMATS = {
    "onnx": Format(ONNX, "export"),
    "int8": Format(ONNX, "export"),
    "openvino": Format((*ONNX, "openvino"), "export,openvino"),
    "torchscript": Format(),
    "torch_export": Format(),
}


def check_formats(names: Sequence[str]) -> list[str]:
    """The formats in the order in which they are written, each once.

    Raises:
        UserError: there is no such format, or a package that it needs is not installed.
    """
    for name in names:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS, "--format")
        packages, extras = FORMATS[name]
        if missing := [package for package in packages if find_spec(package) is None]:
            raise UserError(
                f"--format {name} needs {' and '.join(missing)}: "
                f'pip install "kd_lightning[{extras}]"'
            )
    return [name for name in FORMATS if name in names]


def format_module(name: str) -> ModuleType:
    """The module of a format; see ``kd_lightning.exports`` for what it has."""
    return import_module(f"kd_lightning.exports.{name}")
