"""Shows the progress of a sweep, read from its jobs' files: a live table in a terminal, lines
elsewhere.
"""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from kd_lightning.records.jobs import Job, JobSpec, State

STYLES = {
    State.DONE: "green", State.RUNNING: "cyan", State.FAILED: "red", State.STOPPED: "yellow",
    State.PRUNED: "dim", State.WAITING: "dim",
}  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """The state of one job, as its files say at one moment."""

    spec: JobSpec
    state: State
    progress: dict[str, Any]
    error: str | None

    @property
    def name(self) -> str:
        """Its row of the table, with data set and seed."""
        seed = self.spec.axes.get("seed")
        data = [f"{key}={value}" for key, value in self.spec.axes.items() if "data" in key]
        words = [self.spec.variant, *data, *([] if seed is None else [f"seed={seed}"])]
        return " ".join(dict.fromkeys(words))

    @property
    def seconds(self) -> float | None:
        """How long the job took; None if it is not done."""
        if self.state is not State.DONE:
            return None
        return self.progress["time"] - self.progress["begun"] if "begun" in self.progress else None

    @property
    def seconds_left(self) -> float | None:
        """Time until its current phase ends, estimated from the epochs of this phase that are
        finished; None if unknown.
        """
        progress = self.progress
        if self.state is not State.RUNNING or "started" not in progress:
            return None
        done = progress["epoch"] - progress["first"]
        if not done:
            return None
        per_epoch = (progress["time"] - progress["started"]) / done
        left = per_epoch * (progress["epochs"] - progress["epoch"])
        return max(0.0, left - (time.time() - progress["time"]))

    @property
    def description(self) -> str:
        """What the job is doing, or why it failed."""
        progress = self.progress
        if self.state is State.FAILED:
            return (self.error or "").splitlines()[-1] if self.error else ""
        if self.state not in (State.RUNNING, State.STOPPED) or not progress:
            return ""
        if "epochs" not in progress:
            return str(progress["phase"])
        words = [f"epoch {progress['epoch']}/{progress['epochs']}"]
        if (left := self.seconds_left) is not None:
            words.append(f"{duration(left)} left")
        if progress.get("accuracy"):
            shown = ", ".join(f"{key} {value:.3f}" for key, value in progress["accuracy"].items())
            words.append(f"val/accuracy {shown}")
        return ", ".join([*words, str(progress["phase"])])


class Monitor:
    """Takes snapshots of the jobs whenever it is called. Jobs that are over are read only once.

    Args:
        jobs: may grow.
        total: how many jobs there will be.
    """

    def __init__(self, jobs: Sequence[Job], total: int) -> None:
        self.jobs = jobs
        self.total = total
        self._over: dict[int, Snapshot] = {}

    def __call__(self) -> list[Snapshot]:
        return [self._snapshot(job) for job in list(self.jobs)]

    def _snapshot(self, job: Job) -> Snapshot:
        if job.number in self._over:
            return self._over[job.number]
        snapshot = Snapshot(job.spec, job.state(), job.progress(), job.error())
        if snapshot.state in (State.DONE, State.PRUNED) and not job.is_locked():
            self._over[job.number] = snapshot
        return snapshot


def duration(seconds: float) -> str:
    """A short text for a time: 42 s, 12 min, 3 h 20 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def seconds_left(snapshots: Sequence[Snapshot], total: int, at_once: int = 1) -> float | None:
    """Time until the sweep ends, estimated from the median time of its finished jobs. None before
    the first job has finished.

    Args:
        at_once: how many jobs run at the same time, at least; more if more are running now.
    """
    times = [snapshot.seconds for snapshot in snapshots if snapshot.seconds is not None]
    if not times:
        return None
    per_job = statistics.median(times)
    running = [snapshot for snapshot in snapshots if snapshot.state is State.RUNNING]
    over = sum(s.state in (State.DONE, State.PRUNED, State.FAILED) for s in snapshots)
    waiting = total - over - len(running)
    spent = [time.time() - s.progress.get("begun", time.time()) for s in running]
    left = waiting * per_job + sum(max(0.0, per_job - seconds) for seconds in spent)
    return left / max(at_once, len(running))


def summary(snapshots: Sequence[Snapshot], total: int, at_once: int = 1) -> str:
    """One line: the number of jobs in each state, and the time left."""
    counts = Counter(snapshot.state for snapshot in snapshots)
    counts[State.WAITING] += total - len(snapshots)
    words = [f"{counts[State.DONE]} of {total} done"]
    words += [f"{counts[s]} {s}" for s in State if counts[s] and s is not State.DONE]
    line = ", ".join(words)
    left = seconds_left(snapshots, total, at_once)
    if left is not None and left > 0:
        line += f"; about {duration(left)} left"
    return line


def table(
    title: str, snapshots: Sequence[Snapshot], total: int, *, rows: int, width: int | None = None
) -> Group:
    """The table of all jobs, a line for each.

    Args:
        rows: show at most this many jobs: running and failed ones first.
        width: of the console, to which long names and descriptions are cut; None: nothing is cut.
    """
    shown = most_urgent(snapshots, rows)
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), expand=width is not None)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=width and width // 2)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=width and 1)  # what the others leave
    names = {} if width is None else short_names(snapshots)
    for snapshot in shown:
        name = names.get(snapshot.name, snapshot.name)
        grid.add_row(*number_and_state(snapshot), Text(name), Text(snapshot.description))
    hidden = len(snapshots) - len(shown)
    rest = [Text(f"… and {hidden} more", "dim")] if hidden else []
    return Group(head_of(title, snapshots, total), grid, *rest)


def long_table(title: str, snapshots: Sequence[Snapshot], total: int) -> Group:
    """All jobs, with the description of each below its name, so that nothing is cut."""
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column()
    for snapshot in snapshots:
        grid.add_row(*number_and_state(snapshot), Text(snapshot.name))
        if snapshot.description:
            grid.add_row("", "", Text(snapshot.description))
    return Group(head_of(title, snapshots, total), grid)


def short_names(snapshots: Sequence[Snapshot]) -> dict[str, str]:
    """The name of each job -> the words of it that not all jobs have, each with the last part of
    its key if no other key ends so: ``temperature=2`` for ``method.temperature=2``.
    """
    words = {snapshot.name: snapshot.name.split() for snapshot in snapshots}
    common = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    keys = {word.partition("=")[0] for name in words.values() for word in name if "=" in word}
    ends = Counter(key.rpartition(".")[2] for key in keys)

    def short(word: str) -> str:
        key, sign, value = word.partition("=")
        end = key.rpartition(".")[2]
        return f"{end}={value}" if sign and ends[end] == 1 else word

    return {
        name: " ".join(short(word) for word in parts if word not in common)
        for name, parts in words.items()
    }


def most_urgent(snapshots: Sequence[Snapshot], count: int) -> list[Snapshot]:
    """At most ``count`` jobs in their order: running and failed ones before the others."""
    priority = [
        State.RUNNING, State.FAILED, State.STOPPED, State.WAITING, State.DONE, State.PRUNED,
    ]  # fmt: skip
    chosen = sorted(snapshots, key=lambda snapshot: priority.index(snapshot.state))[:count]
    return sorted(chosen, key=lambda snapshot: snapshot.spec.number)


def number_and_state(snapshot: Snapshot) -> tuple[str, Text]:
    return str(snapshot.spec.number), Text(str(snapshot.state), STYLES[snapshot.state])


def head_of(title: str, snapshots: Sequence[Snapshot], total: int) -> Text:
    return Text.assemble((title, "bold"), f": {summary(snapshots, total)}")


class ProgressLines:
    """Prints the progress of a sweep line by line: the number of jobs, each job that ends, and the
    time left.

    In a terminal, where the live table shows the rest, only jobs that do not end well are printed.
    """

    def __init__(self, monitor: Monitor, console: Console) -> None:
        self.monitor = monitor
        self.console = console
        self.at_once = 1

    def sweep_started(self, directory: Path) -> None:
        over = sum(job.is_over() for job in self.monitor.jobs)
        waiting = self.monitor.total - over
        jobs = "1 job" if waiting == 1 else f"{waiting} jobs"
        self.print(f"{jobs} to run{f', {over} already finished' if over else ''}: {directory}")

    def job_ended(self, job: Job) -> None:
        snapshots = self.monitor()
        (snapshot,) = [each for each in snapshots if each.spec.number == job.number]
        # + 1: this job has just ended, and the next one has not started yet
        running = sum(each.state is State.RUNNING for each in snapshots)
        self.at_once = max(self.at_once, min(running + 1, self.monitor.total))
        if self.console.is_terminal and snapshot.state is State.DONE:
            return
        words = [f"{snapshot.state}"]
        if snapshot.seconds is not None:
            words.append(f"in {duration(snapshot.seconds)}")
        if (metrics := job.metrics()) and metrics["objective"] is not None:
            words.append(f"val/accuracy {metrics['objective']:.4f}")
        if snapshot.description:
            words.append(snapshot.description)
        self.print(f"job {snapshot.spec.number} ({snapshot.name}): {', '.join(words)}")
        self.print(f"  {summary(snapshots, self.monitor.total, self.at_once)}")

    def print(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)
