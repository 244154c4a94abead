"""Runs what of a sweep is not over, shows how far it is, and ends it with its report.

Of all this nothing is kept but the files of the jobs (``jobs.py``) and the directory's
``sweep.yaml`` (``create.py``): who is killed, whenever, is resumed from these.
"""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.live import Live

from kd_lightning import reports
from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import interruptible
from kd_lightning.records.jobs import Job, Order, State, is_held, jobs_of
from kd_lightning.sweeps import create, display, plan, search


def settings_in(directory: Path) -> dict[str, Any]:
    """What ``create.make`` wrote.

    Raises:
        UserError: the directory holds no sweep.
    """
    path = directory / "sweep.yaml"
    if not path.exists():
        raise UserError(f"{directory} is no sweep: expected sweep.yaml and jobs/ in it")
    return OmegaConf.to_container(OmegaConf.load(path))


def changed_launcher(directory: Path, words: Sequence[str]) -> DictConfig:
    """The launcher of a sweep, or another if ``words`` of a command line say so."""
    asked = settings_in(directory)
    others = [word for word in words if not word.startswith("launcher")]
    if others:
        raise UserError(
            f"'{others[0]}' cannot be changed when a sweep is resumed, only the launcher "
            "(launcher=…, launcher.workers=…): start a new sweep"
        )
    if any(word.startswith("launcher=") for word in words):
        return plan.settings_of(words, asked["config_dir"])[1]
    config = OmegaConf.create(asked["launcher"])
    config.merge_with_dotlist([word.removeprefix("launcher.") for word in words])
    return config


def conduct(directory: Path, launcher: Any, console: Console) -> bool:
    """Runs every job that is not over, shows how far they are, and writes the report.

    Args:
        launcher: has ``run(jobs)``, which yields each job when it has ended.

    Returns:
        Whether every job is over now.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, with the command that goes on.
    """
    asked = settings_in(directory)
    if asked["search"] is None:
        jobs: Given | search.Search = Given(directory, asked["jobs"])
    else:
        jobs = search_of(directory, asked)
    for job in jobs.jobs:  # what failed waits again
        if not job.is_over() and not job.is_held():
            (job.directory / "error.txt").unlink(missing_ok=True)
    look = display.Look(jobs.jobs, jobs.total)
    say = display.Lines(look, console)
    say.beginning(directory)
    go_on = f"go on with: python -m kd_lightning.sweep {directory} --resume"
    with (
        interruptible(go_on),
        at_work(directory),
        live(directory.name, look, console),
        closing(launcher.run(jobs.todo())) as ended,
    ):
        for job in ended:
            jobs.heard(job)
            say.ended(job)
    report = reports.build([directory])
    reports.write(report, directory)
    reports.print_report(report, console)
    say.line(f"Sweep: {directory}")
    if asked["search"] is not None and (best := jobs.best()) is not None:
        words = shlex.join(best.order.overrides)
        say.line(f"Best on val: python -m kd_lightning.run {words}")
    states = [job.state() for job in jobs_of(directory)]
    running = states.count(State.RUNNING)
    if running:
        say.line(f"Another process is still at work on {running} of the jobs.")
    failed = sum(state in (State.FAILED, State.STOPPED, State.WAITING) for state in states)
    if failed:
        say.line(
            f"{failed} of {jobs.total} jobs failed: why stands above, and in log.txt of each; "
            f"run them again with: python -m kd_lightning.sweep {directory} --resume"
        )
    return not failed


@contextmanager
def at_work(directory: Path) -> Iterator[None]:
    """Says, to whoever follows the sweep, that a process is at work on it."""
    lock = FileLock(directory / ".at-work")
    with suppress(Timeout):  # another one says so already
        lock.acquire(timeout=0)
    try:
        yield
    finally:
        lock.release()


class Given:
    """The jobs of a sweep that is no search: all are there from the start."""

    def __init__(self, directory: Path, total: int) -> None:
        self.jobs = jobs_of(directory)
        self.total = total
        if len(self.jobs) != total:
            raise UserError(
                f"{directory} has {len(self.jobs)} of its {total} jobs: expected job.json in each "
                "folder of jobs/"
            )

    def todo(self) -> Iterator[Job]:
        """Those that are not over; at the end those that another process works on just now."""
        left = [job for job in self.jobs if not job.is_over()]
        held = []
        for job in left:
            if job.is_held():
                held.append(job)
            elif not job.is_over():
                yield job
        yield from held

    def heard(self, job: Job) -> None:
        """Nothing follows from it."""


def search_of(directory: Path, asked: Mapping[str, Any]) -> search.Search:
    """The search that a sweep's directory holds."""

    def order(number: int, values: Mapping[str, Any]) -> Order:
        variation = plan.variation_of(asked, values)
        (found,), _ = plan.orders(
            [variation], folder=asked["folder"], config_dir=asked["config_dir"]
        )
        return replace(found, number=number, sweep=asked["name"])

    return search.Search(directory, asked["name"], search.Settings(**asked["search"]), order)


@contextmanager
def live(title: str, look: display.Look, console: Console) -> Iterator[None]:
    """In a terminal, a table of the jobs that follows them; elsewhere nothing."""
    if not console.is_terminal:
        yield
        return

    def draw() -> Any:
        return display.table(title, look(), look.total, rows=max(4, console.height - 4), cut=True)

    with Live(get_renderable=draw, console=console, refresh_per_second=2, transient=True):
        yield


def follow(directory: Path, console: Console) -> None:
    """Shows a sweep's jobs; in a terminal until none of them runs any more, or Ctrl-C."""
    asked = settings_in(directory)
    jobs = jobs_of(directory)
    look = display.Look(jobs, asked["jobs"] or create.total_trials(asked["search"]))
    if console.is_terminal:
        with suppress(KeyboardInterrupt), live(directory.name, look, console):
            while is_held(directory / ".at-work") or any(job.is_held() for job in jobs):
                time.sleep(1)
                jobs[:] = jobs_of(directory)  # a search has more of them by and by
    snapshots = look()
    cut = console.is_terminal
    table = display.table(directory.name, snapshots, look.total, rows=len(snapshots), cut=cut)
    if not cut:  # no width to keep to
        console.width = console.measure(table, options=console.options.update(width=10_000)).maximum
    console.print(table)
