"""The table of an export: each file beside the PyTorch student and the teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kd_lightning.base.files import format_bytes
from kd_lightning.base.tables import Table
from kd_lightning.exports.checked_files import CheckedFile
from kd_lightning.exports.measure import Speed
from kd_lightning.exports.parity import BATCH, SINGLES, CheckedSamples


@dataclass(frozen=True)
class StudentRow:
    """The PyTorch student, which the files are compared with.

    Attributes:
        parameters: their number.
        size: of its file, in bytes.
        speed: on the CPU.
        accuracy: on the samples of the check; None without labels.
    """

    parameters: int
    size: int
    speed: Speed
    accuracy: float | None


def table_of(
    files: Sequence[CheckedFile],
    student: StudentRow,
    samples: CheckedSamples,
    record: Mapping[str, Any] | None,
    teacher: Speed | None,
    *,
    kind: str,
    batch: int,
) -> Table:
    """The formatted table.

    Args:
        samples: of the check.
        record: the content of the run's ``metrics.json``, for the teacher; None: it is not here.
        teacher: its speed, measured here as the student's; None: only what the run has recorded.
        kind: "images" or "series".
        batch: size of the batch of the throughput.
    """
    heads = ["", "parameters", "size", "latency", f"{kind}/s", "difference", "same class"]
    rows = [
        [
            "student in PyTorch",
            f"{student.parameters:,}",
            format_bytes(student.size),
            *cells(student.speed),
            "",
            "",
            share_cell(student.accuracy),
        ]
    ]
    rows += [
        [
            f"{file.format}: {', '.join(file.files)}",
            "",
            format_bytes(file.size),
            *cells(file.speed),
            f"{file.parity.difference:.1e}",
            share_cell(file.parity.agreement),
            share_cell(file.parity.accuracy),
        ]
        for file in files
    ]
    notes = [*parity_notes(samples, files), speed_note(kind, batch)]
    if record is not None and "teacher" in record["nets"]:
        row, note = teacher_row(record, teacher)
        rows.append(row)
        notes.append(note)
    return Table("export", "Exported files", [*heads, "accuracy"], rows, notes)


def teacher_row(record: Mapping[str, Any], speed: Speed | None) -> tuple[list[str], str]:
    """The row of the teacher, and what it says.

    Args:
        record, speed: as in ``table_of``.
    """
    net = record["nets"]["teacher"]
    accuracy = share_cell(net["test"]["accuracy"])
    parameters = f"{net['parameters']:,}"
    if speed is not None:
        row = ["teacher in PyTorch", parameters, "", *cells(speed), "", "", accuracy]
        return row, "teacher: its net timed here with initial weights; accuracy: of the run's test."
    row = ["teacher", parameters, "", "", f"{net['throughput']:,.0f}", "", "", accuracy]
    batch, device = record["batch"], record["device"]
    return row, f"teacher: as recorded by the run, batches of {batch}, {device}."


def cells(speed: Speed) -> tuple[str, str]:
    return f"{speed.latency:.2f} ms", f"{speed.throughput:,.0f}"


def share_cell(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def parity_notes(samples: CheckedSamples, files: Sequence[CheckedFile]) -> list[str]:
    """How the files were checked."""
    lines = [
        f"Checked with {samples.about}: {SINGLES} one by one, the others in batches of {BATCH}."
    ]
    if samples.is_noise:
        lines.append("No real sample was checked: give some with --samples.")
    lines.append(
        "difference: the largest, of any output, from the student in PyTorch; same class: share of "
        "equal predictions."
    )
    if allowed := {file.parity.allowed for file in files if file.format != "int8"}:
        lines.append(f"Differences up to {max(allowed):.1e} are rounding; larger ones are refused.")
    if "int8" in [file.format for file in files]:
        lines.append("int8 computes something else: its difference is only reported.")
    return lines


def speed_note(kind: str, batch: int) -> str:
    threads = torch.get_num_threads()
    return (
        f"latency: of one sample; {kind}/s: in batches of {batch}; medians, on the CPU with "
        f"{threads} {'thread' if threads == 1 else 'threads'}."
    )
