"""The numerical precision that suits a device."""

import torch


def best_dtype(device: torch.device) -> torch.dtype:
    """The lowest precision for which ``device`` has fast hardware. This is detected."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        return torch.float16 if torch.cuda.get_device_capability(device)[0] >= 7 else torch.float32
    if device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    ):
        return torch.bfloat16
    return torch.float32


def usual_precision(accelerator: str) -> str | int:
    """The precision of a run that names none: mixed on a GPU that is fast with it, else 32.

    A CPU gets 32: its results are the reference, and equal seeds give equal bits.

    Args:
        accelerator: "auto", "cpu" or "gpu".
    """
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return 32
    mixed = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}
    return mixed.get(best_dtype(torch.device("cuda")), 32)
