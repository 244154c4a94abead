"""Makes a sweep's directory, and runs what of it is not over.

    <outputs>/sweeps/<time>_<title>_<4 digits>/
      jobs/0000/ …   the jobs (``jobs.py``)
      sweep.yaml     what was asked for; written last, so it says that all jobs are there
      table.md …     the report, rewritten whenever the sweep ends

Nothing else is kept: who is killed, whenever, is resumed from these files.
"""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.live import Live

from kd_lightning import reports
from kd_lightning.directories import make_directory, new_directory
from kd_lightning.errors import UserError
from kd_lightning.files import whole
from kd_lightning.interrupts import Interrupted, interruptible
from kd_lightning.jobs import Job, Order, State, create, jobs_of
from kd_lightning.schema import arguments_of, check_arguments, check_targets
from kd_lightning.sweeps import display, plan, search


def start(words: Sequence[str], config_dir: str | None, console: Console) -> Path:
    """Makes the directory of the sweep that a command line asks for.

    Args:
        words: of the command line, without options.
        config_dir: a folder of the person's own YAML.

    Raises:
        UserError: before anything is written, if a job could not start.
    """
    of_sweep, of_jobs = plan.split(words)
    settings, launcher, preset = plan.settings_of(of_sweep, config_dir)
    build_launcher(launcher)
    variations = plan.expand(settings, of_jobs)
    title = plan.title_of(settings, preset, variations)
    asked = {
        "title": title,
        "command": ["-m", *words],
        "config_dir": str(Path(config_dir).resolve()) if config_dir else None,
        "folder": str(Path.cwd()),
        **{key: getattr(settings, key) for key in plan.RECORDED},
        "overrides": list(plan.last_wins([*settings.overrides, *plan.fixed_words(of_jobs)])),
        "launcher": OmegaConf.to_container(launcher, resolve=True),
    }
    console.print(f"{counted(variations, settings)}: checking them", highlight=False)
    if settings.search is not None:
        variations = [plan.variation_of(asked, first_values(settings.search))]
    orders, first = plan.orders(variations, folder=asked["folder"], config_dir=asked["config_dir"])
    if settings.dir is None:
        directory = new_directory(Path(first.outputs) / "sweeps", title).resolve()
    else:
        directory = Path(settings.dir).resolve()
        if (directory / "jobs").exists():
            raise UserError(
                f"sweep.dir={settings.dir} holds a sweep already: go on with it by "
                f"python -m kd_lightning.sweep {settings.dir} --resume"
            )
        make_directory(directory / "jobs", "sweep.dir")
    for order in orders if settings.search is None else []:
        create(directory / "jobs" / f"{order.number:04d}", replace(order, sweep=directory.name))
    with whole(directory / "sweep.yaml") as unfinished:
        OmegaConf.save(OmegaConf.create({"name": directory.name, **asked}), unfinished)
    return directory


def counted(variations: Sequence[plan.Variation], settings: plan.Settings) -> str:
    """How many jobs there are, and how that comes."""
    if settings.search is not None:
        return f"A search of {settings.search['trials']} trials"
    rows = len({one.variant for one in variations})
    rest = len(variations) // rows
    jobs = "1 job" if len(variations) == 1 else f"{len(variations)} jobs"
    return jobs if rest == 1 or rows == 1 else f"{jobs} ({rows} variants x {rest})"


def settings_in(directory: Path) -> dict[str, Any]:
    """What ``start`` wrote.

    Raises:
        UserError: the directory holds no sweep.
    """
    path = directory / "sweep.yaml"
    if not path.exists():
        raise UserError(f"{directory} is no sweep: expected sweep.yaml and jobs/ in it")
    return OmegaConf.to_container(OmegaConf.load(path))


def build_launcher(config: DictConfig) -> Any:
    """The launcher that a configuration names; a wrong key or value is a ``UserError``."""
    check_targets(config, "launcher")
    return instantiate(config, _convert_="object")


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
    jobs = Given(directory) if asked["search"] is None else search_of(directory, asked)
    look = display.Look(jobs.jobs, jobs.total)
    say = display.Lines(look, console)
    say.beginning(directory)
    try:
        with (
            interruptible(),
            live(directory.name, look, console),
            closing(launcher.run(jobs.todo())) as ended,
        ):
            for job in ended:
                jobs.heard(job)
                say.ended(job)
    except Interrupted as interrupted:
        interrupted.advice = f"go on with: python -m kd_lightning.sweep {directory} --resume"
        raise
    report = reports.build([directory])
    reports.write(report, directory)
    reports.print_report(report, console)
    say.line(f"Sweep: {directory}")
    if asked["search"] is not None and (best := jobs.best()) is not None:
        words = shlex.join(best.order.overrides)
        say.line(f"Best on val: python -m kd_lightning.run {words}")
    failed = [job for job in jobs.jobs if not job.is_over()]
    if failed:
        say.line(
            f"{len(failed)} of {jobs.total} jobs failed: why stands above, and in log.txt of each; "
            f"run them again with: python -m kd_lightning.sweep {directory} --resume"
        )
    return not failed


class Given:
    """The jobs of a sweep that is no search: all are there from the start."""

    def __init__(self, directory: Path) -> None:
        self.jobs = jobs_of(directory)
        self.total = len(self.jobs)

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


def first_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Some values of a search's space, to see whether a job of it can be composed.

    Raises:
        UserError: for settings that no search can have.
    """
    check_arguments(OmegaConf.create(settings), arguments_of(search.Settings), "sweep.search")
    check_targets(OmegaConf.create(settings), "sweep.search")
    distributions = search.distributions_of(settings["space"])
    search.total_of(search.Settings(**settings), distributions)
    return {
        key: one.choices[0] if hasattr(one, "choices") else one.low
        for key, one in distributions.items()
    }


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
    look = display.Look(jobs, len(jobs) if asked["search"] is None else asked["search"]["trials"])
    if console.is_terminal:
        with suppress(KeyboardInterrupt), live(directory.name, look, console):
            while any(one.state is State.RUNNING for one in look()):
                time.sleep(1)
                jobs[:] = jobs_of(directory)  # a search has more of them by and by
    snapshots = look()
    table = display.table(directory.name, snapshots, look.total, rows=len(snapshots))
    console.print(table, soft_wrap=True)
