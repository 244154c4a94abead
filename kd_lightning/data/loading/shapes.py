"""Sentences about the shape of arrays: what each axis was taken for."""

from jaxtyping import Num
from torch import Tensor


def shape_notes(name: str, x: Num[Tensor, "N C *size"], dtype: str) -> list[str]:
    """What the axes of ``x`` are, and whether two of them may be swapped.

    Args:
        name: of the array.
        dtype: of the array in its file.
    """
    count, channels, *size = x.shape
    kind = "series" if len(size) == 1 else "images"
    sides = " x ".join(map(str, size)) + (" steps" if kind == "series" else "")
    plural = "channel" if channels == 1 else "channels"
    kept = str(x.dtype).removeprefix("torch.")
    read = dtype if dtype == kept else f"{dtype} read as {kept}"
    notes = [f"{name}: {count} {kind} of {channels} {plural} x {sides}, {read}."]
    if kind == "series" and channels > size[0]:
        notes.append(
            f"{name} looks transposed: it has more channels than steps, and its axes are (samples, "
            f"channels, length). If they are (samples, length, channels), save "
            f"{name}.transpose(0, 2, 1)."
        )
    return notes
