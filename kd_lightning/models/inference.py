"""A net that learns no more, made as cheap as such a net can be, and shown to answer as it did.

Its batch norms are folded into the layers before them, its images lie channels last, its trunk
computes in a precision that the machine is fast at, and is compiled where that pays. What comes
before and after the trunk, normalising and the classifier, stays in float32.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from kd_lightning.models.classifier import Classifier
from kd_lightning.models.folding import fold_batch_norms

# Largest deviation of the logits, as ``deviation`` has it, that rounding accounts for.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
DTYPES = {"32": torch.float32, "16": torch.float16, "bf16": torch.bfloat16}
PRECISIONS = (*DTYPES, "best")


def best_dtype(device: torch.device) -> torch.dtype:
    """The lowest precision that ``device`` is faster with: detected, not assumed."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        return torch.float16 if torch.cuda.get_device_capability(device)[0] >= 7 else torch.float32
    if device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    ):
        return torch.bfloat16
    return torch.float32


def teacher_precision(run: str | int, teacher: str | int | None) -> str:
    """The precision of a teacher: its own if one is set, else the run's (32, "bf16-mixed")."""
    return str(run).split("-")[0] if teacher is None else str(teacher)


def no_autocast(device: torch.device) -> AbstractContextManager:
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@contextmanager
def no_tf32(device: torch.device) -> Iterator[None]:
    """Convolutions of a GPU in float32 to the last digit: TF32, their default, tells equal nets
    apart that round differently.
    """
    if device.type != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions of torch say that this name will go
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before


def lay_out(net: nn.Module) -> None:
    """Lets the weights of two-dimensional convolutions lie channels last, and so what they give."""
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


class Converted(nn.Module):
    """A module that computes in a precision and layout of its own, whatever autocast there is
    around it, and answers in float32.

    Args:
        module: is converted itself.
        dtype: of its weights and of what it computes with.
        channels_last: where its input is images.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, channels_last: bool) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype
        self.channels_last = channels_last
        if channels_last:
            lay_out(self.module)

    def forward(self, x: Tensor) -> Tensor:
        if self.channels_last and x.ndim == 4:
            x = x.to(self.dtype, memory_format=torch.channels_last)
        with no_autocast(x.device):
            return self.module(x.to(self.dtype)).float()


class CompiledClassifier(Classifier):
    """A ``Classifier`` whose plain passes go through a compiled twin of its trunk; ``trunk`` itself
    can still be given dropout passes.
    """

    def __init__(self, net: Classifier, run_trunk: Callable[[Tensor], Tensor]) -> None:
        super().__init__(prepare=net.prepare, trunk=net.trunk, dropout=net.dropout.p, head=net.head)
        object.__setattr__(self, "run_trunk", run_trunk)  # not registered: it is the trunk again

    def features(self, x: Num[Tensor, "B C *size"]) -> Tensor:
        return self.run_trunk(self.prepare(x))


@torch.no_grad()
def frozen(
    net: Classifier,
    x: Num[Tensor, "B C *size"],
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    compiled: bool = False,
) -> Classifier:
    """A fast twin of ``net``, which stays as it is.

    Args:
        net: in eval mode, on its device.
        x: samples to look at a forward pass with; a compiled twin is for batches of their number,
            and computes others as they are.
        dtype: of the trunk.
        channels_last: layout of images in the trunk.
        compiled: compile the trunk, which takes seconds to minutes.
    """
    assert not net.training
    twin = copy.deepcopy(net).requires_grad_(False)
    fold_batch_norms(twin, x[:2])
    twin.trunk = Converted(twin.trunk, dtype, channels_last)
    twin.head = Converted(twin.head, torch.float32, False)
    if not compiled:
        return twin
    options = {"freezing": True} if x.device.type == "cpu" else None
    fast = torch.compile(twin.trunk, dynamic=False, fullgraph=True, options=options)
    size = len(x)

    def run_trunk(inputs: Tensor) -> Tensor:
        # torch compiles for a few sizes and then gives up; batches from which a bad image was left
        # out have many
        return (fast if len(inputs) == size else twin.trunk)(inputs)

    return CompiledClassifier(twin, run_trunk).eval()


def deviation(logits: Float[Tensor, "B C"], plain: Float[Tensor, "B C"]) -> float:
    """How far logits are from a net's plain ones: root mean square, in units of how much the plain
    ones differ from class to class. 0: equal. What all classes share is left out, as softmax does.
    """
    logits, plain = (z.double() - z.double().mean(-1, keepdim=True) for z in (logits, plain))
    off, spread = logits - plain, plain
    return (off.square().mean() / spread.square().mean().clamp_min(1e-30)).sqrt().item()


@torch.no_grad()
def freeze(
    net: nn.Module,
    x: Num[Tensor, "B C *size"],
    *,
    precision: str = "32",
    channels_last: bool = True,
    compiled: bool = False,
) -> nn.Module:
    """``frozen``, after its logits were compared with those of ``net``: ``net`` itself, with a
    warning, where they differ by more than rounding, and where ``net`` is no ``Classifier``.

    Args:
        net: in eval mode, on its device.
        x: samples to compare with.
        precision: of the trunk: "32", "16", "bf16", or "best", the fastest that the machine has.
        channels_last, compiled: as ``frozen``.
    """
    if not isinstance(net, Classifier):
        return net
    dtype = best_dtype(x.device) if precision == "best" else DTYPES[precision]
    few = x if compiled else x[:32]  # a compiled twin is for one shape
    try:
        twin = frozen(net, few, dtype=dtype, channels_last=channels_last, compiled=compiled)
        with no_autocast(x.device), no_tf32(x.device):
            off = deviation(twin(few).logits, net(few).logits)
    except Exception as error:  # a net of a person's own may do anything
        said = " ".join(str(error).split())[:200]
        reason = f"it could not be made faster ({type(error).__name__}: {said})"
    else:
        if off <= TOLERANCE[dtype]:
            return twin
        reason = (
            f"made faster, its logits were off by {off:.2g} of what they differ from class to "
            f"class, where rounding explains {TOLERANCE[dtype]:.2g}"
        )
    warnings.warn(
        f"the teacher is used as it is: {reason} (hardware.teacher_precision=32 and "
        "hardware.channels_last=false change less of it)",
        stacklevel=2,
    )
    return net
