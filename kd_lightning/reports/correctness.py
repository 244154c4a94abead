"""Which test samples each net of a job got right: for intervals that also cover the test set.

A job has this in its ``test_predictions.npz``. A written report has it in ``correct.npz``:

    <number>/test       the number of test samples, then 8 bytes of the SHA-256 of their labels
    <number>/<net>      one bit for each test sample, 1 if the net was right (numpy.packbits)

where number is that of the line in ``records.jsonl``, from 0. The labels tell whether two jobs were
tested on the same samples in the same order.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import atomic_write
from kd_lightning.base.kept_files import check_archive

PREDICTIONS, FILE = "test_predictions.npz", "correct.npz"
BYTES = 8  # of a number and of a digest


@dataclass(frozen=True)
class Correct:
    """What the nets of one job got right.

    Attributes:
        test: which test samples these are: equal for equal labels in the same order.
        nets: the name of a net -> whether it was right, for each sample.
    """

    test: bytes = b""
    nets: Mapping[str, Bool[np.ndarray, " samples"]] = field(default_factory=dict)


def of_run(directory: Path) -> Correct:
    """What the nets of a run got right; nothing if its predictions cannot be read."""
    arrays = _load(directory / PREDICTIONS)
    if "labels" not in arrays:
        return Correct()
    labels = arrays["labels"]
    digest = hashlib.sha256(labels.astype("<i4").tobytes()).digest()[:BYTES]
    nets = {
        name.removesuffix("/predicted"): values == labels
        for name, values in arrays.items()
        if name.endswith("/predicted")
    }
    return Correct(len(labels).to_bytes(BYTES, "little") + digest, nets)


def write(path: Path, jobs: Sequence[Correct]) -> None:
    """Writes ``correct.npz``. If nothing is known of any job, an older file is removed."""
    arrays: dict[str, np.ndarray] = {}
    for number, job in enumerate(jobs):
        if job.nets:
            arrays[f"{number}/test"] = np.frombuffer(job.test, np.uint8)
            arrays |= {f"{number}/{name}": np.packbits(bits) for name, bits in job.nets.items()}
    if not arrays:
        path.unlink(missing_ok=True)
        return
    # written into an open file: NumPy would add .npz to the temporary name
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: Path, count: int) -> list[Correct]:
    """Reads a ``correct.npz`` with so many jobs. Without the file nothing is known of any."""
    of_jobs: dict[str, dict[str, np.ndarray]] = {}
    for key, values in _load(path).items():
        number, _, name = key.partition("/")
        of_jobs.setdefault(number, {})[name] = values
    return [_unpack(of_jobs.get(str(number), {})) for number in range(count)]


def _unpack(arrays: Mapping[str, np.ndarray]) -> Correct:
    if "test" not in arrays:
        return Correct()
    test = arrays["test"].tobytes()
    samples = int.from_bytes(test[:BYTES], "little")
    packed = {name: bits for name, bits in arrays.items() if name != "test"}
    return Correct(
        test,
        {name: np.unpackbits(bits, count=samples) > 0 for name, bits in packed.items()},
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; none if it is missing or cannot be read."""
    try:
        check_archive(path)
        with np.load(path) as file:
            return dict(file)
    except (UserError, OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}
