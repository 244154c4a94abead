"""The numerical precision that suits a device, and TF32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def best_dtype(device: torch.device) -> torch.dtype:
    """The lowest precision for which ``device`` has fast hardware. This is detected."""
    if device.type == "cuda":
        # torch.cuda.is_bf16_supported is about the current GPU, and by default counts emulation
        capability, _ = torch.cuda.get_device_capability(device)
        if capability >= 8 or torch.version.hip:
            return torch.bfloat16
        return torch.float16 if capability >= 7 else torch.float32
    if device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    ):
        return torch.bfloat16
    return torch.float32


def usual_precision(accelerator: str, deterministic: bool = False) -> str | int:
    """The precision of a run that names none: mixed on a GPU that is fast with it, else 32.

    A CPU gets 32: its results are the reference, and equal seeds give equal bits.

    Args:
        accelerator: "auto", "cpu" or "gpu".
        deterministic: reference results are asked for, so it is 32 everywhere.
    """
    if deterministic or accelerator not in ("auto", "gpu", "cuda"):
        return 32
    if not torch.cuda.is_available():
        return 32
    mixed = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}
    return mixed.get(best_dtype(torch.device("cuda")), 32)


def allow_tf32(allowed: bool) -> None:
    """Sets whether a GPU may round the factors of float32 products and convolutions to TF32, which
    has 10 bits of mantissa. torch's own default allows it for convolutions alone.
    """
    # torch also has fp32_precision for each backend, but after it these two names raise errors, and
    # Lightning reads them
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def no_tf32() -> Iterator[None]:
    """Inside, a GPU computes float32 products and convolutions in full precision, so that two
    computations of the same net can be compared.
    """
    products = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
