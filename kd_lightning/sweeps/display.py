"""How far a sweep is, by the files of its jobs: a live table in a terminal, lines elsewhere."""

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

from kd_lightning.records.jobs import Job, Order, State

STYLES = {
    State.DONE: "green", State.RUNNING: "cyan", State.FAILED: "red", State.STOPPED: "yellow",
    State.PRUNED: "dim", State.WAITING: "dim",
}  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """One job, as its files have it now."""

    order: Order
    state: State
    progress: dict[str, Any]
    error: str | None

    @property
    def name(self) -> str:
        """Its row and what its row is averaged over."""
        seed = self.order.axes.get("seed")
        data = [f"{key}={value}" for key, value in self.order.axes.items() if "data" in key]
        words = [self.order.variant, *data, *([] if seed is None else [f"seed={seed}"])]
        return " ".join(dict.fromkeys(words))

    @property
    def seconds(self) -> float | None:
        """That it took, once it is done."""
        if self.state is not State.DONE:
            return None
        return self.progress["time"] - self.progress["begun"] if "begun" in self.progress else None

    @property
    def seconds_left(self) -> float | None:
        """Of the phase it is in, from the epochs that this phase has done; None if not known."""
        told = self.progress
        if self.state is not State.RUNNING or "started" not in told:
            return None
        done = told["epoch"] - told["first"]
        if not done:
            return None
        each = (told["time"] - told["started"]) / done
        return max(0.0, each * (told["epochs"] - told["epoch"]) - (time.time() - told["time"]))

    @property
    def doing(self) -> str:
        """What it is at, in words."""
        told = self.progress
        if self.state is State.FAILED:
            return (self.error or "").splitlines()[-1] if self.error else ""
        if self.state not in (State.RUNNING, State.STOPPED) or not told:
            return ""
        if "epochs" not in told:
            return str(told["phase"])
        words = [f"epoch {told['epoch']}/{told['epochs']}"]
        if (left := self.seconds_left) is not None:
            words.append(f"{duration(left)} left")
        if told.get("accuracy"):
            shown = ", ".join(f"{key} {value:.3f}" for key, value in told["accuracy"].items())
            words.append(f"val/accuracy {shown}")
        return ", ".join([*words, str(told["phase"])])


class Look:
    """Looks at jobs, again and again; what is over is not read twice.

    Args:
        jobs: may grow.
        total: how many there will be.
    """

    def __init__(self, jobs: Sequence[Job], total: int) -> None:
        self.jobs = jobs
        self.total = total
        self._over: dict[int, Snapshot] = {}

    def __call__(self) -> list[Snapshot]:
        return [self._look(job) for job in list(self.jobs)]

    def _look(self, job: Job) -> Snapshot:
        if job.number in self._over:
            return self._over[job.number]
        snapshot = Snapshot(job.order, job.state(), job.progress(), job.error())
        if snapshot.state in (State.DONE, State.PRUNED) and not job.is_held():
            self._over[job.number] = snapshot
        return snapshot


def duration(seconds: float) -> str:
    """A time to read: 42 s, 12 min, 3 h 20 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def seconds_left(snapshots: Sequence[Snapshot], total: int, at_once: int = 1) -> float | None:
    """Of the sweep, at the pace of its finished jobs, ``at_once`` or as many as run now; None
    before the first has finished.
    """
    spent = [one.seconds for one in snapshots if one.seconds is not None]
    if not spent:
        return None
    each = statistics.median(spent)
    running = [one for one in snapshots if one.state is State.RUNNING]
    over = sum(one.state in (State.DONE, State.PRUNED, State.FAILED) for one in snapshots)
    waiting = total - over - len(running)
    begun = [time.time() - one.progress.get("begun", time.time()) for one in running]
    rest = waiting * each + sum(max(0.0, each - seconds) for seconds in begun)
    return rest / max(at_once, len(running))


def summary(snapshots: Sequence[Snapshot], total: int, at_once: int = 1) -> str:
    """One line: how many jobs are how far, and how long the rest will take."""
    counts = Counter(one.state for one in snapshots)
    counts[State.WAITING] += total - len(snapshots)
    words = [f"{counts[State.DONE]} of {total} done"]
    words += [f"{counts[s]} {s}" for s in State if counts[s] and s is not State.DONE]
    line = ", ".join(words)
    left = seconds_left(snapshots, total, at_once)
    if left is not None and left > 0:
        line += f"; about {duration(left)} left"
    return line


def table(
    title: str, snapshots: Sequence[Snapshot], total: int, *, rows: int, cut: bool = False
) -> Group:
    """The whole, at most ``rows`` jobs long: what runs and what failed first, then the others.

    Args:
        cut: long names and words are cut where the console is narrow.
    """
    order = [
        State.RUNNING, State.FAILED, State.STOPPED, State.WAITING, State.DONE, State.PRUNED,
    ]  # fmt: skip
    first = sorted(snapshots, key=lambda one: order.index(one.state))[:rows]
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), expand=cut)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    for share in (2, 3):
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=share if cut else None)
    for one in sorted(first, key=lambda one: one.order.number):
        state = Text(str(one.state), STYLES[one.state])
        grid.add_row(str(one.order.number), state, Text(one.name), Text(one.doing))
    head = Text.assemble((title, "bold"), f": {summary(snapshots, total)}")
    hidden = len(snapshots) - len(first)
    rest = [Text(f"… and {hidden} more", "dim")] if hidden else []
    return Group(head, grid, *rest)


class Lines:
    """What a sweep says in lines: how many jobs there are, each that ends, how long the rest takes.

    In a terminal the ends are left to the live table, but for failures.
    """

    def __init__(self, look: Look, console: Console) -> None:
        self.look = look
        self.console = console
        self.at_once = 1

    def beginning(self, directory: Path) -> None:
        over = sum(job.is_over() for job in self.look.jobs)
        todo = self.look.total - over
        jobs = "1 job" if todo == 1 else f"{todo} jobs"
        self.line(f"{jobs} to run{f', {over} over already' if over else ''}: {directory}")

    def ended(self, job: Job) -> None:
        snapshots = self.look()
        (one,) = [each for each in snapshots if each.order.number == job.number]
        # this one has just made room, which the next has not taken yet
        running = sum(each.state is State.RUNNING for each in snapshots)
        self.at_once = max(self.at_once, min(running + 1, self.look.total))
        if self.console.is_terminal and one.state is State.DONE:
            return
        told = [f"{one.state}"]
        if one.seconds is not None:
            told.append(f"in {duration(one.seconds)}")
        if (metrics := job.metrics()) and metrics["objective"] is not None:
            told.append(f"val/accuracy {metrics['objective']:.4f}")
        if one.doing:
            told.append(one.doing)
        self.line(f"job {one.order.number} ({one.name}): {', '.join(told)}")
        self.line(f"  {summary(snapshots, self.look.total, self.at_once)}")

    def line(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)
