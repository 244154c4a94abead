"""Makes a sweep's directory, once all that a command line asks for has been checked.

<outputs>/sweeps/<time>_<title>_<4 digits>/
  jobs/0000/ …   the jobs (``jobs.py``); a search makes them by and by
  sweep.yaml     what was asked for; written last, so it says that all jobs are there
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import whole
from kd_lightning.config.schema import arguments_of, check_arguments, check_targets
from kd_lightning.records.jobs import create, jobs_of
from kd_lightning.records.run_directory import make_directory, new_directory
from kd_lightning.reports.columns import expand as expand_columns
from kd_lightning.reports.published import read_published
from kd_lightning.sweeps import plan, search
from kd_lightning.sweeps.overrides import fixed_words, last_wins


def make(words: Sequence[str], config_dir: str | None, console: Console) -> Path:
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
    expand_columns(settings.columns or [], [])  # a wrong one is refused now, not at the end
    read_published(settings.reported)
    asked = {
        "title": title,
        "command": ["-m", *words],
        "config_dir": str(Path(config_dir).resolve()) if config_dir else None,
        "folder": str(Path.cwd()),
        **{key: getattr(settings, key) for key in plan.RECORDED},
        "overrides": list(last_wins([*settings.overrides, *fixed_words(of_jobs)])),
        "launcher": OmegaConf.to_container(launcher, resolve=True),
    }
    console.print(f"{counted(variations, settings)}: checking them", highlight=False, markup=False)
    if settings.search is not None:
        check_search(settings.search, variations[0])
        variations = [plan.variation_of(asked, first_values(settings.search))]
    orders, first = plan.orders(variations, folder=asked["folder"], config_dir=asked["config_dir"])
    directory = directory_for(settings.dir, Path(first.outputs) / "sweeps", title)
    for order in orders if settings.search is None else []:
        create(directory / "jobs" / f"{order.number:04d}", replace(order, sweep=directory.name))
    about = {"name": directory.name, "jobs": None if settings.search else len(orders), **asked}
    with whole(directory / "sweep.yaml") as unfinished:
        OmegaConf.save(OmegaConf.create(about), unfinished)
    return directory


def counted(variations: Sequence[plan.Variation], settings: plan.Settings) -> str:
    """How many jobs there are, and how that comes."""
    if settings.search is not None:
        return f"A search of {settings.search['trials']} trials"
    rows = len({one.variant for one in variations})
    rest = len(variations) // rows
    jobs = "1 job" if len(variations) == 1 else f"{len(variations)} jobs"
    return jobs if rest == 1 or rows == 1 else f"{jobs} ({rows} variants x {rest})"


def directory_for(asked: str | None, sweeps: Path, title: str) -> Path:
    """The directory of a new sweep, made.

    Args:
        asked: ``sweep.dir``.
        sweeps: where new ones are made, if none was asked for.
    """
    if asked is None:
        return new_directory(sweeps, title).resolve()
    directory = Path(asked).resolve()
    if (directory / "sweep.yaml").exists():
        raise UserError(
            f"sweep.dir={asked} holds a sweep already: go on with it by "
            f"python -m kd_lightning.sweep {asked} --resume"
        )
    if any(directory.glob("jobs/*/progress.json")):
        raise UserError(f"sweep.dir={asked} holds jobs of a sweep: choose another")
    for job in jobs_of(directory):  # of a plan that was never whole
        (job.directory / "job.json").unlink()
    make_directory(directory / "jobs", "sweep.dir")
    return directory


def check_search(settings: dict[str, Any], variation: plan.Variation) -> None:
    """Checks the settings of a search, and makes the place of its storage absolute.

    Args:
        variation: what its command line would be without the search.

    Raises:
        UserError: for settings that no search can have.
    """
    if variation.axes:
        raise UserError(
            f"{next(iter(variation.axes))} varies, and a search chooses its jobs itself: give it "
            "one value, or put it into sweep.search.space"
        )
    check_arguments(OmegaConf.create(settings), arguments_of(search.Settings), "sweep.search")
    check_targets(OmegaConf.create(settings), "sweep.search")
    total_trials(settings)
    if relative := re.fullmatch(r"sqlite:///(?!/)(.+)", settings["storage"] or ""):
        settings["storage"] = f"sqlite:///{Path(relative[1]).resolve()}"


def first_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Some values of a search's space, to see whether a job of it can be composed."""
    distributions = search.distributions_of(settings["space"])
    return {
        key: one.choices[0] if hasattr(one, "choices") else one.low
        for key, one in distributions.items()
    }


def total_trials(settings: Mapping[str, Any]) -> int:
    """How many jobs a search will have."""
    asked = search.Settings(**settings)
    return search.total_of(asked, search.distributions_of(asked.space))


def build_launcher(config: DictConfig) -> Any:
    """The launcher that a configuration names; a wrong key or value is a ``UserError``."""
    check_targets(config, "launcher")
    return instantiate(config, _convert_="object")
