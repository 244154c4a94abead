"""A sweep of many tiny jobs: memory and open files of the sweep must stay flat.

    python -m benchmarks.torture.soak --jobs 200 --workers 8     about 15 minutes on 2 quiet cores
    python -m benchmarks.torture.soak --write                    also into results/torture.md

Twice a second the processes of the sweep are measured: the command itself, the process from which
jobs are forked, and the jobs. What leaks grows with the number of jobs that are done, so the first
fifth of the measurements is compared with the last.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.torture.cases import DUAL, TINY
from benchmarks.torture.tool import minutes_since, parser_of, show
from kd_lightning.base.files import format_bytes
from kd_lightning.records.jobs import State, jobs_of

TABLE = "Soak"
EVERY = 0.5  # seconds
MOST_GROWTH = 0.1  # of memory and of open files, from the first fifth to the last
SHORT = ("trainer.max_epochs=1", "data.num_train=48", "teacher.trainer.max_epochs=1")


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        own: bytes of the command and of the process that forks the jobs, not shared with others.
        files: open files of the two.
        processes: all processes of the sweep.
        done: jobs that are over.
    """

    own: int
    files: int
    processes: int
    done: int


def soaked(jobs: int, workers: int, folder: Path) -> tuple[list[Sample], list[State]]:
    """Runs a sweep; returns the measurements, and the states of its jobs."""
    directory = folder / "sweep"
    words = [*TINY, *DUAL, *SHORT, f"seed={','.join(map(str, range(jobs)))}", f"outputs={folder}"]
    words += [f"sweep.dir={directory}", f"launcher.workers={workers}"]
    with (folder / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "kd_lightning.run", "-m", *words]
        sweep = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    found = []
    while sweep.poll() is None:
        time.sleep(EVERY)
        if (directory / "sweep.yaml").exists() and (sample := measured(sweep.pid, directory)):
            found.append(sample)
    # not while it writes its report, at the end
    found = [sample for sample in found if sample.done < jobs]
    return found, [job.state() for job in jobs_of(directory)]


def measured(pid: int, directory: Path) -> Sample | None:
    """A measurement of a sweep; None if it ends just now, or no job has ended yet."""
    done = len(list(directory.glob("jobs/*/metrics.json")))
    try:
        command = psutil.Process(pid)
        lasting = [command, *command.children()]
        if any(process.status() == psutil.STATUS_ZOMBIE for process in lasting):
            return None
        own = sum(process.memory_full_info().uss for process in lasting)
        files = sum(process.num_fds() for process in lasting)
        processes = 1 + len(command.children(recursive=True))
    except psutil.Error:
        return None
    return Sample(own, files, processes, done) if done else None


def table(samples: Sequence[Sample]) -> Iterator[str]:
    """The lines of the table: the medians of the first and of the last fifth."""
    first, last = fifths(samples)
    yield "| | jobs done | memory of its own | open files | processes |"
    yield "|---|---:|---:|---:|---:|"
    for name, part in (("first fifth", first), ("last fifth", last)):
        done, own, files, processes = (
            statistics.median(getattr(sample, field) for sample in part)
            for field in ("done", "own", "files", "processes")
        )
        yield f"| {name} | {done:.0f} | {format_bytes(int(own))} | {files:.0f} | {processes:.0f} |"


def fifths(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    size = max(1, len(samples) // 5)
    return samples[:size], samples[-size:]


def growth(samples: Sequence[Sample], field: str) -> float:
    """By how much the median of the last fifth is larger than that of the first, as a share."""
    first, last = (
        statistics.median(getattr(sample, field) for sample in part) for part in fifths(samples)
    )
    return last / first - 1


def main(words: Sequence[str] | None = None) -> int:
    """The command line. Returns the number of jobs that are not done, and of figures that grow."""
    words = sys.argv[1:] if words is None else words
    parser = parser_of("soak", __doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=8, help="jobs at the same time")
    arguments = parser.parse_args(words)
    folder, start = Path(tempfile.mkdtemp(prefix="soak-")), time.perf_counter()
    samples, states = soaked(arguments.jobs, arguments.workers, folder)
    failed = sum(state != State.DONE for state in states)
    missing = failed + arguments.jobs - len(states)
    grows = [
        f"{title} grew by {growth(samples, field):.0%}"
        for field, title in (("own", "memory"), ("files", "open files"))
        if samples and growth(samples, field) > MOST_GROWTH
    ]
    kept = [f"what the sweep printed: {folder / 'log.txt'}"] if missing else []
    end = f"{len(states) - failed} of {arguments.jobs} jobs done, {minutes_since(start)}"
    lines = table(samples) if samples else ["Nothing was measured: no job has ended."]
    show("soak", TABLE, words, lines, end, lost=[*grows, *kept], write=arguments.write)
    if not missing:
        shutil.rmtree(folder)
    return missing + len(grows)


if __name__ == "__main__":
    sys.exit(bool(main()))
