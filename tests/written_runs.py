"""Reads back what trackers have written."""

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 2**15  # of the file, of LevelDB's log format
HEADER = 7  # of the file, and of each piece of a record: crc (4), length (2), kind (1)
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4  # kinds of pieces


@dataclass
class WandbRun:
    """A run of a ``.wandb`` file.

    Attributes:
        about: its protobuf ``RunRecord``: run_id, display_name, run_group, job_type, tags, project.
        exit_code: None where the run was not finished.
    """

    about: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def names(self) -> set[str]:
        """Of all metrics in the history, but for wandb's own."""
        names = {name for row in self.history for name in row}
        return {name for name in names if not name.startswith("_")} - {"trainer/global_step"}


def read_wandb(directory: Path) -> WandbRun:
    """The only wandb run below a run directory."""
    (run,) = read_all_wandb(directory)
    return run


def read_all_wandb(directory: Path) -> list[WandbRun]:
    """The wandb runs below a run directory, all of which have been finished; the oldest first."""
    return [_read(path) for path in sorted(directory.glob("wandb/*run-*/run-*.wandb"))]


def _read(path: Path) -> WandbRun:
    # what writes is another process, and may be a moment behind
    for _ in range(100):
        run = _read_as_it_is(path)
        if run.exit_code is not None:
            return run
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def _read_as_it_is(path: Path) -> WandbRun:
    run = WandbRun()
    for content in _records(path.read_bytes()):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.about = record.run
            run.config |= _items(record.run.config.update)
        elif kind == "config":
            run.config |= _items(record.config.update)
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "summary":
            run.summary |= _items(record.summary.update)
        elif kind == "artifact":
            run.artifacts[record.artifact.name] = [
                entry.path for entry in record.artifact.manifest.contents
            ]
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes):
    position, record = HEADER, b""
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + HEADER])
        position += HEADER
        if position + length > len(content):
            return  # its end is not written yet
        record += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            yield record
            record = b""
