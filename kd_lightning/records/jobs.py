"""Jobs: the runs of a sweep. Each job is a directory with what to run and how far it is.

    <sweep>/jobs/0007/
      job.json       what to run; written once, before anything starts
      log.txt        the output of the run
      progress.json  what the run is doing; the run rewrites it at every epoch
      error.txt      why the job failed; only after a failure
      pruned.json    the epoch after which a search stopped the job
      metrics.json   written last: it marks the job as done
      ...            the other files of a run directory (``run.py``)

A job's state is always read from these files and stored nowhere else, so it stays correct whatever
process is killed. The process that runs a job holds a lock of the operating system on it, which
ends with the process.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock

from kd_lightning.base.errors import Damaged
from kd_lightning.base.files import json_text, write_text
from kd_lightning.base.kept_files import read_json, write_kept
from kd_lightning.records.run_directory import TEST_AGAIN

# The environment variable that tells a job's process, and the processes it starts, its directory.
JOB_VARIABLE = "KD_LIGHTNING_JOB"
# The one that tells it the ID of the process that started it, which may end while it imports.
PARENT_VARIABLE = "KD_LIGHTNING_PARENT"


class State(StrEnum):
    """The state of a job, read from its files."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    PRUNED = "pruned"
    FAILED = "failed"
    STOPPED = "stopped"  # started, and its process ended without an error message


@dataclass(frozen=True)
class JobSpec:
    """What one job runs: the content of ``job.json``.

    Attributes:
        number: the job's number in its sweep, from 0.
        variant: the name of its row in the sweep's table.
        axes: the keys that vary in the sweep, with this job's values; ``seed`` is one of them.
        overrides: the overrides of the run, as on a command line.
        sweep: the sweep's name.
        folder: the folder in which the sweep was started; relative paths start there.
        config_dir: a folder with the user's own YAML files, or None.
        devices: the number of devices that it needs on each machine.
        num_nodes: the number of machines that it needs.
        accelerator: the kind of device, as in ``hardware.accelerator``.
        threads: CPU threads of each of its processes; None: as many as there are cores.
        search: for a trial of a search: its storage, study and number (``sweeps/search.py``).
        teacher: equal for jobs that need the same trained teacher; "": it needs none, or it is not
            known.
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
    teacher: str = ""


@dataclass(frozen=True)
class Job:
    """A job, given by its directory.

    Attributes:
        allow: packages whose functions ``job.json`` may name; it may be from somebody else.
    """

    directory: Path
    allow: tuple[str, ...] = field(default=(), compare=False, kw_only=True)

    @property
    def spec(self) -> JobSpec:
        path = self.directory / "job.json"
        content = read_json(path)
        try:
            return JobSpec(**content)
        except TypeError as error:
            raise Damaged(path, f"does not describe a job ({error})") from error

    @property
    def number(self) -> int:
        return int(self.directory.name)

    @property
    def log(self) -> Path:
        return self.directory / "log.txt"

    def command(self) -> list[str]:
        """The command that runs this job, on any machine that sees its directory."""
        program = [sys.executable, "-m", "kd_lightning.work"]
        allow = ["--allow", *self.allow] if self.allow else []
        return [*program, str(self.directory.resolve()), "--with-parent", *allow]

    def state(self) -> State:
        # The lock is read first. So a job that ends in the meantime counts as running or done.
        is_locked = self.is_locked()
        if (self.directory / "metrics.json").exists():
            return State.DONE
        if (self.directory / "pruned.json").exists():
            return State.PRUNED
        if is_locked:
            return State.RUNNING
        if (self.directory / "error.txt").exists():
            return State.FAILED
        return State.STOPPED if self.progress() else State.WAITING

    def is_over(self) -> bool:
        """Whether the job is done or pruned."""
        return any((self.directory / name).exists() for name in ("metrics.json", "pruned.json"))

    def is_locked(self) -> bool:
        """Whether a process holds the job's lock, so runs it."""
        return is_locked(self.directory / ".lock")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the job's lock. Waits until it is free."""
        lock = FileLock(self.directory / ".lock")
        with lock:
            yield

    def progress(self) -> dict[str, Any]:
        """The job's last report; {} if there is none.

        Its keys: ``phase``, ``epoch``, ``epochs``, ``accuracy`` (on val, by student), and times in
        seconds since 1970: ``started`` (of the phase), ``begun`` (of the job), ``time`` (of the
        report).
        """
        with suppress(Damaged):  # missing, or cut off by a power failure
            return read_json(self.directory / "progress.json")
        return {}

    def report(self, **progress: Any) -> None:
        """Writes what the job is doing. If that fails, the job continues."""
        with suppress(OSError):
            now = time.time()
            begun = {"begun": self.progress().get("begun", now)}
            text = json.dumps({**begun, **progress, "time": now})
            write_text(self.directory / "progress.json", text)

    def error(self) -> str | None:
        """Why the job failed; None if it did not."""
        with suppress(FileNotFoundError):
            return (self.directory / "error.txt").read_text("utf-8", errors="replace").strip()
        return None

    def record_exit(self, exit_code: int | None) -> None:
        """Writes ``error.txt`` for a process that ended without writing it.

        Args:
            exit_code: of the process; after a signal it is negative or more than 128.
        """
        if not exit_code or self.is_over() or self.error():
            return
        signum = -exit_code if exit_code < 0 else exit_code - 128
        how = f"with exit code {exit_code}"
        if signum in set(signal.Signals):
            how = f"by {signal.Signals(signum).name}"
            if signum == signal.SIGKILL:
                how += ": somebody killed it, or the memory was full"
        with suppress(OSError):  # a full disk must not stop the other jobs
            write_text(self.directory / "error.txt", f"its process was ended {how}\n")

    def metrics(self) -> dict[str, Any] | None:
        """The content of ``metrics.json``; None if the job is not done."""
        path = self.directory / "metrics.json"
        return read_json(path, advice=TEST_AGAIN) if path.exists() else None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock at ``path``.

    The check takes a shared lock for a moment, so two checks at once do not disturb each other.
    """
    import fcntl  # not on Windows, where single runs work but sweeps do not

    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def create_job(directory: Path, spec: JobSpec) -> Job:
    """Makes a job's directory, ``<sweep>/jobs/<number>``."""
    directory.mkdir(parents=True, exist_ok=True)
    write_kept(directory, {"job.json": json_text(asdict(spec))})
    return Job(directory)


def jobs_of(sweep: Path) -> list[Job]:
    """All jobs of a sweep's directory, sorted by number."""
    return [Job(path.parent) for path in sorted(sweep.glob("jobs/*/job.json"))]


def current_job() -> Job | None:
    """The job that this process runs; None if it runs no job of a sweep."""
    directory = os.environ.get(JOB_VARIABLE)
    return Job(Path(directory)) if directory else None
