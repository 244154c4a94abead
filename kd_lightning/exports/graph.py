"""What is exported: one module with one input and one output, and what both mean.

Dimensions: B batch, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from kd_lightning.base.errors import UserError
from kd_lightning.models.classifier import Classifier

PREPROCESSING = ("inside", "outside")


class Probabilities(nn.Module):
    """Raw samples -> probabilities: preprocessing and softmax are part of the graph."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, x: Num[Tensor, "B *shape"]) -> Float[Tensor, "B C"]:
        return self.student(x).float().softmax(-1)


class Logits(nn.Module):
    """Samples that are normalized and resized already -> logits."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.trunk, self.head = net.trunk, net.head

    def forward(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B C"]:
        return self.head(self.trunk(x))


@dataclass(frozen=True)
class Graph:
    """A module to export.

    Attributes:
        module: in eval mode, on the CPU.
        input_name, output_name: of the exported file, where its format has names.
        to_input: a batch of samples of the data -> the module's input.
        expected: a batch of samples of the data -> the output that PyTorch computes for it.
        example: two inputs of the module.
        about: facts for the file's metadata, as text.
    """

    module: nn.Module
    input_name: str
    output_name: str
    to_input: Callable[[Tensor], Tensor]
    expected: Callable[[Tensor], Tensor]
    example: Tensor
    about: dict[str, str]


def build_graph(
    student: nn.Module,
    shape: Sequence[int],
    preprocessing: str,
    *,
    dtype: torch.dtype = torch.uint8,
) -> Graph:
    """The graph of a student.

    Args:
        student: samples -> logits, in eval mode and without gradients; its ``net`` is what a run
            has trained.
        shape: of one sample, (channels, *size).
        preprocessing: "inside": raw samples -> probabilities; "outside": prepared samples, which
            are float32, normalized and resized -> logits.
        dtype: of raw images, uint8 or float32; series are float32.

    Raises:
        UserError: the net has no preprocessing of its own that could be left outside.
    """
    kind = "images" if len(shape) == 3 else "series"
    samples = torch.zeros(2, *shape, dtype=dtype if kind == "images" else torch.float32)
    if preprocessing == "inside":
        return Graph(
            module=Probabilities(student).eval(),
            input_name=kind,
            output_name="probabilities",
            to_input=lambda x: as_type(x, samples.dtype),
            expected=lambda x: student(as_type(x, samples.dtype)).float().softmax(-1),
            example=samples,
            about={"preprocessing": preprocessing, "input": describe_raw(samples)},
        )
    net = student.net
    if not isinstance(net, Classifier):
        raise UserError(
            f"--preprocessing outside is for a kd_lightning Classifier, got {type(net).__name__}: "
            "leave it inside"
        )
    prepared = net.prepare(samples)
    words = f"{describe(prepared)}, {normalization(net, samples)}"
    return Graph(
        module=Logits(net).eval(),
        input_name=kind,
        output_name="logits",
        to_input=net.prepare,
        expected=student,
        example=prepared,
        about={"preprocessing": preprocessing, "input": words},
    )


def as_type(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Images as uint8, or as float32 in [0, 1]; series, which are float32, as they are."""
    if dtype == torch.uint8 and x.is_floating_point():
        return (x * 255).round().clamp(0, 255).to(torch.uint8)
    if dtype.is_floating_point and x.dtype == torch.uint8:
        return x.to(dtype) / 255
    return x


def describe(example: Tensor) -> str:
    """The input in words, such as "uint8 of shape (batch, 3, 32, 32), values 0 to 255"."""
    kind = str(example.dtype).removeprefix("torch.")
    values = ", values 0 to 255" if example.dtype == torch.uint8 else ""
    return f"{kind} of shape (batch, {', '.join(map(str, example.shape[1:]))}){values}"


def describe_raw(samples: Tensor) -> str:
    """``describe`` for samples as the student takes them."""
    as_they_are = samples.ndim == 4 and samples.is_floating_point()
    return describe(samples) + as_they_are * ", values in [0, 1]"


def normalization(net: Classifier, samples: Tensor) -> str:
    """How samples are normalized before the trunk, in words.

    Args:
        samples: as the student takes them.
    """
    if getattr(net.prepare, "mean", None) is None:
        return "not normalized"
    mean, std = (
        [float(f"{value:.6g}") for value in getattr(net.prepare, name).flatten().tolist()]
        for name in ("mean", "std")
    )
    value = "x / 255" if samples.dtype == torch.uint8 else "x"
    return f"normalized for each channel, ({value} - mean) / std, mean {mean}, std {std}"
