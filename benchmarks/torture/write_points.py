"""The points at which a process writes files: all are listed, or something happens at one.

Only this process is watched, from outside of the package, by Python's audit events and by wrapped
``os.replace`` and ``os.fsync``. What another library writes without Python is seen when it is
renamed.
"""

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kd_lightning.callbacks.save_epoch import SaveEpoch

# kind of a point -> what is on the disk when the process dies there
KINDS = {
    "make a folder": "no folder",
    "open": "no file, or the file as it was before",
    "sync": "a whole temporary file that is not renamed",
    "half a file": "half a temporary file",
    "before the rename": "a whole temporary file",
    "after the rename": "the new file",
    "power failure": "an empty file, if it was renamed without being synced",
    "remove": "a file that should be gone",
}
OFTEN = ("half a file", "before the rename", "after the rename", "power failure")
RECORD = "points.tsv"  # the file that lists the points of a run, in its folder
HASH = re.compile(r"(?<=[-/])[0-9a-f]{8,16}\b")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Point(NamedTuple):
    """A moment of writing: its kind, the file, and how often this has come before."""

    kind: str
    file: str
    count: int

    def __str__(self) -> str:
        return f"{self.kind}: {self.file}{f' (number {self.count + 1})' if self.count else ''}"


@dataclass
class WritePoints:
    """Watches how a process writes below a folder. Call it in that process.

    Args:
        root: files elsewhere are not seen.
        record: gets a line for every point.
        victim: the point at which something happens; None: nothing happens.
        action: what happens there; None: the process dies. It gets ``root``.
    """

    root: Path
    record: Path
    victim: Point | None = None
    action: Callable[[Path], None] | None = None
    _counts: Counter = field(default_factory=Counter)
    _synced: set[int | None] = field(default_factory=set)

    def __call__(self) -> None:
        SaveEpoch.pause = 0.0  # every epoch is written, so that each run has the same points
        self._fsync = os.fsync
        os.fsync = self.fsync
        os.replace, os.rename = map(self.watching, (os.replace, os.rename))
        sys.addaudithook(self.heard)

    def is_at(self, kind: str, path: Any) -> bool:
        """Notes a point. Returns whether it is the victim."""
        file = self.name_of(path)
        if file is None:
            return False
        point = Point(kind, file, self._counts[kind, file])
        self._counts[kind, file] += 1
        with open(self.record, "a") as record:
            record.write("\t".join(map(str, point)) + "\n")
        return point == self.victim

    def happen(self) -> None:
        """Does what shall happen at the victim's point, once."""
        if self.action is None:
            die()
        self.victim = None
        self.action(self.root)

    def name_of(self, path: Any) -> str | None:
        """The name of a file that is the same in every run; None: it is not watched."""
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        full = Path(os.fsdecode(path)).absolute()
        if not full.is_relative_to(self.root) or full == self.record:
            return None
        return HASH.sub("…", str(full.relative_to(self.root)))

    def heard(self, event: str, arguments: tuple) -> None:
        """An audit event; it comes before what it tells of."""
        if event == "open" and (arguments[2] or 0) & WRITES:
            kind = "open"
        else:
            kind = {"os.mkdir": "make a folder", "os.remove": "remove"}.get(event)
        if kind == "remove":
            self._synced.discard(node_of(arguments[0]))
            if str(arguments[0]).endswith(".tmp"):
                return  # it has just been renamed
        if kind is not None and self.is_at(kind, arguments[0]):
            self.happen()

    def fsync(self, descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if self.is_at("sync", os.readlink(f"/proc/self/fd/{number}")):
            self.happen()
        self._fsync(descriptor)
        self._synced.add(os.fstat(number).st_ino)

    def watching(self, rename: Callable) -> Callable:
        """The same function, with the points before and after it."""

        def watched(source: Any, target: Any, **options: Any) -> None:
            is_file = os.path.isfile(source)
            is_written = is_file and str(source).endswith(".tmp")  # not last.ckpt, which is whole
            if is_written and self.is_at("half a file", target):
                os.truncate(source, os.path.getsize(source) // 2)
                die()
            if self.is_at("before the rename", target):
                self.happen()
            is_synced = node_of(source) in self._synced
            self._synced.discard(node_of(target))  # another file may get its number
            rename(source, target, **options)
            if self.is_at("after the rename", target):
                die()
            if is_file and not is_synced and self.is_at("power failure", target):
                os.truncate(target, 0)
                die()

        return watched


def node_of(path: Any) -> int | None:
    """The number of a file on its disk."""
    return os.stat(path).st_ino if os.path.exists(path) else None


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def read_points(record: Path) -> list[Point]:
    """All points of a run, in their order."""
    lines = [line.split("\t") for line in record.read_text().splitlines()]
    return [Point(kind, file, int(count)) for kind, file, count in lines]


def first_and_last(points: Sequence[Point]) -> list[Point]:
    """The first point of each kind and file, and the last rename of each file."""
    last = {(p.kind, p.file): p for p in points if p.kind in OFTEN}
    chosen = {p for p in points if not p.count} | set(last.values())
    return [point for point in points if point in chosen]
