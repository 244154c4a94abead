"""Predicts the classes of samples with a student, batch by batch, and writes them as a table.

Dimensions: B batch, C classes, D features, K classes of a row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import printable
from kd_lightning.models.checkpoints import first_line
from kd_lightning.predictions.outputs import Row, check_inputs_stay, check_output, open_output
from kd_lightning.predictions.progress import showing_progress
from kd_lightning.predictions.samples import Batch, find_files, is_table, read_batches
from kd_lightning.predictions.tables import Sample
from kd_lightning.students.load import Student

NO_NUMBER = "the student's output for it is no number, as happens with values that are too large"
# of one sample: K classes, their K probabilities, and D features or None
Result = tuple[list[int], list[float], list[float] | None]


@dataclass(frozen=True)
class Counts:
    """How many samples were predicted, and how many could not be read."""

    predicted: int
    failed: int


def predict_files(
    student: Student,
    inputs: Sequence[str],
    out: str | None = None,
    *,
    top_k: int = 5,
    embeddings: bool = False,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "cpu",
) -> Counts:
    """Writes a row for each sample.

    A row has the ``file`` and the ``index`` in the file (if it has several samples); the ``class``
    and its ``probability``; the classes and probabilities in the places 2 to K (``class_2``,
    ``probability_2``, …); the ``embedding``, if it is asked for; and the ``error`` of a sample that
    cannot be read, which has no class.

    Args:
        inputs: image files, folders of them, .npz, .csv or .tsv files (see ``tables.py``).
        out: a .csv, .json, .jsonl or .parquet file; None or "-": CSV on the standard output.
        top_k: number of classes in a row, K.
        embeddings: also write the input of the last layer, (D).
        workers: number of processes that decode images.
        device: as torch names it; "auto": a GPU if there is one.

    Raises:
        UserError: there is no such file, the student does not take such files, or ``out`` or
            ``device`` cannot be used.
    """
    if top_k < 1 or batch_size < 1 or workers < 0:
        raise UserError(
            "expected --top-k >= 1, --batch-size >= 1 and --workers >= 0, got "
            f"{top_k}, {batch_size} and {workers}"
        )
    check_output(out, embeddings)
    files = find_files(inputs, student.info["input"])
    check_inputs_stay(out, files)
    student.to(find_device(device))
    names = columns(min(top_k, len(student.class_names)), embeddings)
    batches = read_batches(files, student, batch_size=batch_size, workers=workers)
    total = None if any(map(is_table, files)) else len(files)
    failed = predicted = 0
    with (
        open_output(out, names) as write,
        showing_progress(total, hidden=out in (None, "-")) as advance,
    ):
        for rows in predict_rows(student, batches, names):
            write(rows)
            advance(len(rows))
            bad = sum(bool(row["error"]) for row in rows)
            failed, predicted = failed + bad, predicted + len(rows) - bad
    return Counts(predicted, failed)


def columns(top_k: int, embeddings: bool) -> list[str]:
    """The names of the columns for K classes a row."""
    others = [
        f"{name}_{place}" for place in range(2, top_k + 1) for name in ("class", "probability")
    ]
    features = ["embedding"] if embeddings else []
    return ["file", "index", "class", "probability", *others, *features, "error"]


@torch.inference_mode()
def predict_rows(
    student: Student, batches: Iterable[Batch], names: Sequence[str]
) -> Iterator[list[Row]]:
    """The rows of each batch.

    Args:
        names: of the columns.
    """
    device = next(student.parameters()).device
    top_k = sum(name.startswith("class") for name in names)
    for batch in batches:
        results: Iterator[Result] = iter(())
        samples = batch.samples
        if batch.x is not None:
            output = student.net(batch.x.to(device))
            probabilities = output.logits.softmax(1)
            samples = with_faults(samples, probabilities.isfinite().all(1).tolist())
            top = probabilities.topk(top_k)
            features = output.features.tolist() if "embedding" in names else [None] * len(batch.x)
            results = zip(top.indices.tolist(), top.values.tolist(), features, strict=True)
        rows = []
        for sample, read in zip(samples, batch.samples, strict=True):
            result = None if read.error else next(results)
            result = None if sample.error else result
            rows.append(to_row(sample, result, names, student.class_names))
        yield rows


def with_faults(samples: Sequence[Sample], are_finite: Sequence[bool]) -> list[Sample]:
    """The samples, with an error where the student has no number for one that could be read.

    Args:
        are_finite: of each sample without an error, whether its probabilities are numbers.
    """
    finite = iter(are_finite)
    return [
        sample if sample.error or next(finite) else replace(sample, error=NO_NUMBER)
        for sample in samples
    ]


def to_row(
    sample: Sample, result: Result | None, names: Sequence[str], class_names: Sequence[str]
) -> Row:
    """The row of one sample.

    Args:
        result: None: the sample could not be read.
        names: of the columns.
    """
    row: dict[str, Any] = dict.fromkeys(names)
    row |= {"file": printable(sample.file), "index": sample.index, "error": sample.error or None}
    if result is None:
        return row
    classes, probabilities, features = result
    for place, (label, probability) in enumerate(zip(classes, probabilities, strict=True), 1):
        end = "" if place == 1 else f"_{place}"
        row |= {f"class{end}": class_names[label], f"probability{end}": probability}
    if features is not None:
        row["embedding"] = features
    return row


def find_device(name: str) -> torch.device:
    """The device with this name; "auto": a GPU if there is one.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"--device must be auto, cpu or a GPU of this machine, got {name}: {first_line(error)}"
        ) from error
