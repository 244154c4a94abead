"""Jobs: the runs of a sweep. Each is a directory that says what is to be run, and how far it is.

    <sweep>/jobs/0007/
      job.json       what to run; written once, before anything starts
      log.txt        what it prints
      progress.json  what it is doing, by its own word, rewritten at every epoch
      error.txt      why it failed; only after a failure
      pruned.json    the epoch after which a search gave it up
      metrics.json   that it is done; beside it all else that a run leaves (``run.py``)

A job's state is read from these files, never kept: whoever is killed, whenever, leaves none wrong.
Who works on a job holds the operating system's lock on it, so a dead process holds none.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import write_text

# Where a job's process, and what it starts, find the directory of the job.
VARIABLE = "KD_LIGHTNING_JOB"


class State(StrEnum):
    """What a job's files say of it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    PRUNED = "pruned"
    FAILED = "failed"
    STOPPED = "stopped"  # begun, and its process is gone without a word


@dataclass(frozen=True)
class Order:
    """What one job is to run: the content of ``job.json``.

    Attributes:
        number: of the job in its sweep, from 0.
        variant: its row of the sweep's table, in words.
        axes: what varies in the sweep, and this job's value of it; ``seed`` is among them.
        overrides: of the run, as on a command line.
        sweep: the sweep's name.
        folder: where the sweep was started; relative paths of its configuration begin there.
        config_dir: a folder of the person's own YAML, or None.
        devices: that it needs on each machine.
        num_nodes: machines that it needs.
        accelerator: what the devices are, as ``hardware.accelerator`` has it.
        threads: of the CPU that each of its processes uses; None: as many as there are.
        search: for a trial: storage, study and number of it (``sweeps/search.py``).
    """

    number: int
    variant: str
    axes: Mapping[str, Any]
    overrides: Sequence[str]
    sweep: str = ""
    folder: str | None = None
    config_dir: str | None = None
    devices: int = 1
    num_nodes: int = 1
    accelerator: str = "auto"
    threads: int | None = None
    search: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Job:
    """A job, by its directory."""

    directory: Path

    @property
    def order(self) -> Order:
        path = self.directory / "job.json"
        try:
            return Order(**json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is no job's order: {error}") from error

    @property
    def number(self) -> int:
        return int(self.directory.name)

    @property
    def log(self) -> Path:
        return self.directory / "log.txt"

    def command(self) -> list[str]:
        """What does this job, in a process of its own, on any machine that has the directory."""
        program = [sys.executable, "-m", "kd_lightning.work"]
        return [*program, str(self.directory.resolve()), "--with-parent"]

    def state(self) -> State:
        # the lock is looked at first: a job that ends meanwhile is then seen as running or as done
        held = self.is_held()
        if (self.directory / "metrics.json").exists():
            return State.DONE
        if (self.directory / "pruned.json").exists():
            return State.PRUNED
        if held:
            return State.RUNNING
        if (self.directory / "error.txt").exists():
            return State.FAILED
        return State.STOPPED if self.progress() else State.WAITING

    def is_over(self) -> bool:
        """Whether nothing is left to do for it."""
        return any((self.directory / name).exists() for name in ("metrics.json", "pruned.json"))

    def is_held(self) -> bool:
        """Whether a process works on it."""
        return is_held(self.directory / ".lock")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the job, after whoever holds it now."""
        lock = FileLock(self.directory / ".lock")
        with lock:
            yield

    def progress(self) -> dict[str, Any]:
        """What it said last of itself: ``phase``, ``epoch``, ``epochs``, ``started`` (of the phase,
        seconds since 1970), ``begun`` (the job), ``time`` (of saying so), ``accuracy`` (val, by
        student); {} if nothing.
        """
        with suppress(FileNotFoundError, ValueError):  # not there, or cut by a power failure
            return json.loads((self.directory / "progress.json").read_text("utf-8"))
        return {}

    def report(self, **progress: Any) -> None:
        """Says what the job is doing. That it cannot be written must not end the job."""
        with suppress(OSError):
            now = time.time()
            begun = {"begun": self.progress().get("begun", now)}
            said = json.dumps({**begun, **progress, "time": now})
            write_text(self.directory / "progress.json", said)

    def error(self) -> str | None:
        """Why it failed; None if it did not."""
        with suppress(FileNotFoundError):
            return (self.directory / "error.txt").read_text("utf-8").strip()
        return None

    def explain(self, exit_code: int | None) -> None:
        """Writes why its process has ended, where it could not say so itself.

        Args:
            exit_code: of the process; negative, or more than 128, after a signal.
        """
        if not exit_code or self.is_over() or self.error():
            return
        signum = -exit_code if exit_code < 0 else exit_code - 128
        how = f"with exit code {exit_code}"
        if signum in set(signal.Signals):
            how = f"by {signal.Signals(signum).name}"
            if signum == signal.SIGKILL:
                how += ": somebody killed it, or the memory was full"
        with suppress(OSError):  # the other jobs go on, whatever this one left
            write_text(self.directory / "error.txt", f"its process was ended {how}\n")

    def metrics(self) -> dict[str, Any] | None:
        """Its ``metrics.json``; None if it is not done."""
        with suppress(FileNotFoundError):
            return json.loads((self.directory / "metrics.json").read_text("utf-8"))
        return None


def is_held(path: Path) -> bool:
    """Whether a process holds the lock at ``path``. To look takes a shared lock for a moment, so
    that those who look do not take each other for the holder.
    """
    import fcntl  # Windows has none: a single run works there, a sweep does not

    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def create(directory: Path, order: Order) -> Job:
    """Writes a job's directory, ``<sweep>/jobs/<number>``."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "job.json", json.dumps(asdict(order), indent=2) + "\n")
    return Job(directory)


def jobs_of(sweep: Path) -> list[Job]:
    """The jobs of a sweep's directory, by number."""
    return [Job(path.parent) for path in sorted(sweep.glob("jobs/*/job.json"))]


def current() -> Job | None:
    """The job that this process works on; None where it is no job of a sweep."""
    directory = os.environ.get(VARIABLE)
    return Job(Path(directory)) if directory else None
