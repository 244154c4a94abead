"""The table at the end of an export: each file beside the PyTorch student and the teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

from kd_lightning.base.files import format_bytes
from kd_lightning.base.tables import Table
from kd_lightning.exports.checked_files import CheckedFile
from kd_lightning.exports.measure import Speed
from kd_lightning.exports.parity import BATCH, SINGLES, CheckedSamples

HEADS = ("file", "size", "ms", "{unit}/s", "difference", "same class", "accuracy")


def table_of(
    title: str,
    files: Sequence[CheckedFile],
    student: tuple[int, Speed, float | None],
    samples: CheckedSamples,
    teacher: Mapping[str, Any] | None,
    notes: Sequence[str],
    *,
    unit: str,
) -> Table:
    """The formatted table.

    Args:
        student: of the PyTorch student: bytes of its file, speed, accuracy on the samples.
        teacher: its part of ``metrics.json``; None: there is none.
        notes: further lines under the table.
        unit: "images" or "series".
    """
    size, speed, accuracy = student
    rows = [row("PyTorch student", size, speed, accuracy)]
    rows += [
        row(
            f"{file.format}: {file.files[0]}",
            file.size,
            file.speed,
            file.parity.accuracy,
            f"{file.parity.difference:.1e}",
            f"{file.parity.agreement:.2%}",
        )
        for file in files
    ]
    if teacher is not None:
        recorded = f"{teacher['throughput']:,.0f}"
        rows.append(["teacher, recorded by its run", "", "", recorded, "", "", ""])
    heads = [head.format(unit=unit) for head in HEADS]
    return Table("export", title, heads, rows, [*parity_notes(samples, files), *notes])


def row(
    name: str, size: int, speed: Speed, accuracy: float | None, difference: str = "", same: str = ""
) -> list[str]:
    return [
        name,
        format_bytes(size),
        f"{speed.latency:.2f}",
        f"{speed.throughput:,.0f}",
        difference,
        same,
        "" if accuracy is None else f"{accuracy:.2%}",
    ]


def parity_notes(samples: CheckedSamples, files: Sequence[CheckedFile]) -> list[str]:
    """How the files were checked."""
    allowed = {file.parity.allowed for file in files if file.format != "int8"}
    lines = [
        f"difference, same class: largest absolute difference from PyTorch, and share of equal "
        f"predictions, on {samples.about} ({SINGLES} one by one, the rest in batches of {BATCH})."
    ]
    if samples.is_noise:
        lines.append("Random noise only: no real sample was checked. Give some with --samples.")
    if allowed:
        lines.append(f"Allowed is a difference of {max(allowed):.1e}; int8 is only reported.")
    return lines
