"""A fast copy of a net that is no longer trained, checked against the net.

In the copy, batch norms are folded into the layers before them, images are stored channels last,
and the trunk computes in a precision that is fast on this machine. The trunk can also be compiled.
What comes before and after the trunk (normalization and classifier) stays in float32.
"""

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from kd_lightning.base.precision import best_dtype, no_tf32
from kd_lightning.models.classifier import Classifier
from kd_lightning.models.ensemble import Ensemble
from kd_lightning.models.folding import fold_batch_norms

# Largest relative RMS error of the logits that rounding can explain.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
DTYPES = {"32": torch.float32, "16": torch.float16, "bf16": torch.bfloat16}


def teacher_precision(run: str | int, teacher: str | int | None) -> str:
    """The teacher's precision if it is set, else that of the run: 32, "bf16-mixed" -> "bf16"."""
    return str(run).split("-")[0] if teacher is None else str(teacher)


def no_autocast(device: torch.device) -> AbstractContextManager:
    """A context without autocast, on a device of any kind.

    The compiler of torch 2.11 cannot follow ``is_autocast_available``, so it is not called while
    compiling. The devices that torch compiles for have autocast.
    """
    if torch.compiler.is_compiling() or torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def to_channels_last(net: nn.Module) -> None:
    """Stores the weights of two-dimensional convolutions channels last; their outputs follow."""
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


class PrecisionWrapper(nn.Module):
    """A module that always computes in the same precision and layout, and returns float32.

    Autocast around it has no effect.

    Args:
        module: is converted in place.
        dtype: of its weights and of its computation.
        channels_last: whether its weights and images are stored channels last.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, channels_last: bool) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype
        self.channels_last = channels_last
        if channels_last:
            to_channels_last(self.module)

    def forward(self, x: Tensor) -> Tensor:
        if self.channels_last and x.ndim == 4:
            x = x.to(self.dtype, memory_format=torch.channels_last)
        with no_autocast(x.device):
            return self.module(x.to(self.dtype)).float()


class CompiledClassifier(Classifier):
    """A ``Classifier`` whose deterministic passes use a compiled version of its trunk.

    Dropout passes can still use ``trunk`` itself.
    """

    def __init__(self, net: Classifier, run_trunk: Callable[[Tensor], Tensor]) -> None:
        super().__init__(prepare=net.prepare, trunk=net.trunk, dropout=net.dropout.p, head=net.head)
        # not registered as a module, because it has the parameters of the trunk
        object.__setattr__(self, "run_trunk", run_trunk)

    def features(self, x: Num[Tensor, "B C *size"]) -> Tensor:
        return self.run_trunk(self.prepare(x))


@torch.no_grad()
def fast_copy(
    net: Classifier,
    x: Num[Tensor, "B C *size"],
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    compiled: bool = False,
) -> Classifier:
    """A fast copy of ``net``. The net itself does not change.

    Args:
        net: in eval mode, on its device.
        x: samples for a forward pass that finds the batch norms to fold. A compiled copy is for
            batches of this size, and computes batches of other sizes without compilation.
        dtype: of the trunk.
        channels_last: whether images in the trunk are stored channels last.
        compiled: compile the trunk, which takes seconds to minutes.
    """
    assert not net.training
    copied = copy.deepcopy(net).requires_grad_(False)
    fold_batch_norms(copied, x[:2])
    copied.trunk = PrecisionWrapper(copied.trunk, dtype, channels_last)
    copied.head = PrecisionWrapper(copied.head, torch.float32, False)
    if not compiled:
        return copied
    options = {"freezing": True} if x.device.type == "cpu" else None
    compiled_trunk = torch.compile(copied.trunk, dynamic=False, fullgraph=True, options=options)
    size = len(x)

    def run_trunk(inputs: Tensor) -> Tensor:
        # torch compiles for a few sizes only, and batches without their damaged images have many
        return (compiled_trunk if len(inputs) == size else copied.trunk)(inputs)

    return CompiledClassifier(copied, run_trunk).eval()


def relative_rms_error(logits: Float[Tensor, "B C"], reference: Float[Tensor, "B C"]) -> float:
    """Root mean square difference of the logits, relative to the RMS of the reference logits.

    Both are centred over the classes first, because softmax ignores what all classes share. 0:
    equal.
    """
    logits, reference = (
        z.double() - z.double().mean(-1, keepdim=True) for z in (logits, reference)
    )
    error = (logits - reference).square().mean()
    return (error / reference.square().mean().clamp_min(1e-30)).sqrt().item()


@torch.no_grad()
def checked_fast_copy(
    net: nn.Module,
    x: Num[Tensor, "B C *size"],
    *,
    precision: str = "32",
    channels_last: bool = True,
    compiled: bool = False,
) -> nn.Module:
    """``fast_copy`` if its logits equal those of ``net`` up to rounding, else ``net`` and a
    warning.

    Each net of an ``Ensemble`` is treated so. Another net that is not a ``Classifier`` is returned
    as it is.

    Args:
        net: in eval mode, on its device.
        x: samples for the comparison.
        precision: of the trunk: "32", "16", "bf16", or "best" (see ``best_dtype``).
        channels_last, compiled: see ``fast_copy``.
    """
    if isinstance(net, Ensemble):
        options = {"precision": precision, "channels_last": channels_last, "compiled": compiled}
        return Ensemble([checked_fast_copy(one, x, **options) for one in net.nets]).eval()
    if not isinstance(net, Classifier):
        return net
    dtype = best_dtype(x.device) if precision == "best" else DTYPES[precision]
    few = x if compiled else x[:32]  # a compiled copy is for one batch size
    try:
        copied = fast_copy(net, few, dtype=dtype, channels_last=channels_last, compiled=compiled)
        with no_autocast(x.device), no_tf32():
            error = relative_rms_error(copied(few).logits, net(few).logits)
    except Exception as exception:  # a user's net can raise anything
        message = " ".join(str(exception).split())[:200]
        reason = f"the fast copy failed ({type(exception).__name__}: {message})"
    else:
        if error <= TOLERANCE[dtype]:
            return copied
        if not net(few).logits.isfinite().all():
            return net  # nothing can be compared; the run names this fault of its teacher
        reason = (
            f"the logits of the fast copy have a relative error of {error:.2g}, more than the "
            f"{TOLERANCE[dtype]:.2g} that rounding explains"
        )
    warnings.warn(
        f"the teacher is used without a fast copy: {reason} (hardware.teacher_precision=32 and "
        "hardware.channels_last=false change less in the copy)",
        stacklevel=2,
    )
    return net
