"""Runs the unfinished jobs of a sweep, shows their progress, and writes the report at the end.

The state of a sweep is only in the files of its jobs (``records/jobs.py``) and in its
``sweep.yaml`` (``create.py``). So a sweep can be killed at any moment and resumed.
"""

import shlex
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.live import Live

from kd_lightning import reports
from kd_lightning.base.allowed import ANYTHING
from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import interruptible
from kd_lightning.base.kept_files import finish_sums
from kd_lightning.config.words_of_file import compose_from_file
from kd_lightning.records.jobs import Job, JobSpec, State, is_locked, jobs_of
from kd_lightning.sweeps import create, display, plan, search
from kd_lightning.sweeps.preset import settings_of
from kd_lightning.sweeps.sweep_file import check_files, read_settings

LOCK = ".at-work"  # held while a process runs the sweep


def resume_command(directory: Path, settings: Mapping[str, Any], allow: Sequence[str]) -> str:
    """The command that resumes a sweep, with what its files need to be allowed.

    Args:
        settings: the content of its ``sweep.yaml``.
        allow: what they may name now.
    """
    words = sorted(allow)
    if ANYTHING in allow:
        words = settings.get("needs") or []  # missing in older sweeps
    own = [f"allow=[{','.join(words)}]"] if words else []
    return shlex.join(["python", "-m", "kd_lightning.sweep", str(directory), "--resume", *own])


def launcher_config(directory: Path, words: Sequence[str]) -> DictConfig:
    """The launcher's configuration: that of the sweep, changed by ``words`` of a command line."""
    settings = read_settings(directory)
    others = [word for word in words if not word.startswith("launcher")]
    if others:
        raise UserError(
            f"'{others[0]}' cannot be changed when a sweep is resumed, only the launcher "
            "(launcher=…, launcher.workers=…): start a new sweep"
        )
    if any(word.startswith("launcher=") for word in words):
        return settings_of(words, settings["config_dir"])[1]
    config = OmegaConf.create(settings["launcher"])
    config.merge_with_dotlist([word.removeprefix("launcher.") for word in words])
    return config


def run_sweep(
    directory: Path, launcher: Any, console: Console, allow: Sequence[str] = (ANYTHING,)
) -> bool:
    """Runs every job that is not over, shows the progress, and writes the report.

    Args:
        launcher: has ``run(jobs)``, which yields each job when it has ended.
        allow: packages whose functions the files of the sweep may name; ``ANYTHING``: they hold
            what was typed now.

    Returns:
        Whether every job is over now.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, with the command that resumes the sweep.
    """
    settings = read_settings(directory)
    if settings["search"] is None:
        jobs: FixedJobs | search.Search = FixedJobs(directory, settings["jobs"])
    else:
        jobs = open_search(directory, settings, allow)
    for job in jobs.jobs:  # a job that failed is run again
        finish_sums(job.directory)
        if not job.is_over() and not job.is_locked():
            (job.directory / "error.txt").unlink(missing_ok=True)
    monitor = display.Monitor(jobs.jobs, jobs.total)
    lines = display.ProgressLines(monitor, console)
    lines.sweep_started(directory)
    command = resume_command(directory, settings, allow)
    remaining = (replace(job, allow=tuple(allow)) for job in jobs.remaining())
    with (
        interruptible(f"resume with: {command}"),
        mark_running(directory),
        live_table(directory.name, monitor, console),
        closing(launcher.run(remaining)) as ended,
    ):
        for job in ended:
            jobs.job_ended(job)
            lines.job_ended(job)
    report = reports.build([directory])
    reports.write(report, directory)
    reports.print_report(report, console)
    lines.print(f"Sweep: {directory}")
    if settings["search"] is not None and (best := jobs.best()) is not None:
        own = ["--config-dir", settings["config_dir"]] if settings["config_dir"] else []
        words = shlex.join([*own, *best.spec.overrides])
        lines.print(f"Best on val: python -m kd_lightning.run {words}")
    states = [job.state() for job in jobs_of(directory)]
    running = states.count(State.RUNNING)
    if running:
        lines.print(f"Another process is still running {running} of the jobs.")
    failed = sum(state in (State.FAILED, State.STOPPED, State.WAITING) for state in states)
    if failed:
        lines.print(
            f"{failed} of {jobs.total} jobs failed: the reasons are above, and in log.txt of each "
            f"job; run them again with: {command}"
        )
    return not failed


@contextmanager
def mark_running(directory: Path) -> Iterator[None]:
    """Holds a lock, so that other processes see that this sweep is running."""
    lock = FileLock(directory / LOCK)
    with suppress(Timeout):  # another process runs the sweep too, and holds it
        lock.acquire(timeout=0)
    try:
        yield
    finally:
        lock.release()


class FixedJobs:
    """The jobs of a sweep without a search: all of them exist from the start.

    Args:
        directory: of the sweep.
        total: how many jobs there must be.
    """

    def __init__(self, directory: Path, total: int) -> None:
        self.jobs = jobs_of(directory)
        self.teachers = {job: job.spec.teacher for job in self.jobs}
        self.total = total
        if len(self.jobs) != total:
            raise UserError(
                f"{directory} has {len(self.jobs)} of its {total} jobs: expected job.json in each "
                "folder of jobs/"
            )

    def remaining(self) -> Iterator[Job]:
        """The jobs that are not over. A job whose teacher is just being trained by another one
        comes after those that need not wait for it, and jobs that another process is running come
        last.
        """
        waiting = [job for job in self.jobs if not job.is_over()]
        started: list[Job] = []
        while waiting:
            job = self._next(waiting, self._teachers_in_training(started))
            waiting.remove(job)
            started.append(job)
            if not job.is_over():
                yield job

    def _next(self, waiting: Sequence[Job], busy: Collection[str]) -> Job:
        for job in waiting:
            if self.teachers[job] not in busy and not job.is_locked():
                return job
        return next((job for job in waiting if not job.is_locked()), waiting[0])

    def _teachers_in_training(self, started: Sequence[Job]) -> set[str]:
        """The teachers of jobs that have been started, of which no job is over."""
        over = {self.teachers[job] for job in self.jobs if job.is_over()}
        return {self.teachers[job] for job in started} - over - {""}

    def job_ended(self, job: Job) -> None:
        """Does nothing: the other jobs do not depend on it. A search needs this method."""


def open_search(
    directory: Path, settings: Mapping[str, Any], allow: Sequence[str]
) -> search.Search:
    """The search in a sweep's directory.

    Args:
        settings: the content of its ``sweep.yaml``.
        allow: packages whose functions it may name.
    """
    composer = partial(compose_from_file, path=directory / "sweep.yaml", allow=allow)

    def make_spec(number: int, values: Mapping[str, Any]) -> JobSpec:
        variation = plan.variation_of(settings, values)
        (spec,), _ = plan.job_specs(
            [variation],
            folder=settings["folder"],
            config_dir=settings["config_dir"],
            composer=composer,
        )
        return replace(spec, number=number, sweep=settings["name"])

    search_settings = search.Settings(**settings["search"])
    return search.Search(directory, settings["name"], search_settings, make_spec)


@contextmanager
def live_table(title: str, monitor: display.Monitor, console: Console) -> Iterator[None]:
    """In a terminal, shows a table of the jobs that is updated; elsewhere nothing."""
    if not console.is_terminal:
        yield
        return

    def draw() -> Any:
        rows = max(4, console.height - 4)
        return display.table(title, monitor(), monitor.total, rows=rows, width=console.width)

    with Live(get_renderable=draw, console=console, refresh_per_second=2, transient=True):
        yield


def total_of_search(directory: Path, settings: Mapping[str, Any]) -> int:
    """How many jobs a search will have, told without an import that its file asks for: a grid of a
    sampler that is not known may have fewer.
    """
    try:
        check_files(directory, None, ())
    except UserError:
        return settings["trials"]
    return create.total_trials(settings)


def watch(directory: Path, console: Console) -> None:
    """Shows a sweep's jobs; in a terminal until none of them is running, or until Ctrl-C."""
    settings = read_settings(directory)
    jobs = jobs_of(directory)
    total = settings["jobs"] or total_of_search(directory, settings["search"])
    monitor = display.Monitor(jobs, total)
    if console.is_terminal:
        with suppress(KeyboardInterrupt), live_table(directory.name, monitor, console):
            while is_locked(directory / LOCK) or any(job.is_locked() for job in jobs):
                time.sleep(1)
                jobs[:] = jobs_of(directory)  # a search adds jobs while it runs
    snapshots = monitor()
    table = display.table(directory.name, snapshots, total, rows=len(snapshots))
    needed = console.measure(table, options=console.options.update(width=10_000)).maximum
    if not console.is_terminal:  # make the console as wide as the table
        console.width = needed
    elif needed > console.width:
        table = display.long_table(directory.name, snapshots, total)
    console.print(table)
