"""Creates the directory of a sweep, after everything on its command line has been checked.

<outputs>/sweeps/<time>_<title>_<4 digits>/
  jobs/0000/ …   the jobs (``records/jobs.py``); a search adds them while it runs
  sweep.yaml     the settings; written last, so if it exists all jobs exist
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from kd_lightning.base.allowed import needed_words
from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import write_kept
from kd_lightning.base.override_words import key_of
from kd_lightning.config.schema import arguments_of, check_arguments, check_targets
from kd_lightning.records.jobs import JobSpec, create_job, jobs_of
from kd_lightning.records.run_directory import make_directory, new_directory
from kd_lightning.reports.columns import OBJECTIVE, check_chooser
from kd_lightning.reports.columns import expand as expand_columns
from kd_lightning.reports.differences import check_compared, check_margin, check_primary_column
from kd_lightning.reports.job_results import JobResult
from kd_lightning.reports.pairs import resolve
from kd_lightning.reports.power import check_expected_std, planned_power
from kd_lightning.reports.published import read_published
from kd_lightning.sweeps import plan, search
from kd_lightning.sweeps.overrides import fixed_words, last_wins
from kd_lightning.sweeps.preset import RECORDED, Settings, settings_of


def create_sweep(words: Sequence[str], config_dir: str | None, console: Console) -> Path:
    """Creates the directory of the sweep that a command line describes.

    Args:
        words: of the command line, without options.
        config_dir: a folder with the user's own YAML.

    Raises:
        UserError: a job could not start. Nothing has been written then.
    """
    of_sweep, of_jobs = plan.split(words)
    settings, launcher, preset = settings_of(of_sweep, config_dir)
    build_launcher(launcher)
    variations = plan.expand(settings, of_jobs)
    title = plan.title_of(settings, preset, variations)
    expand_columns(settings.columns or [], [])  # refuses a wrong column now, not at the end
    read_published(settings.reported)
    check_margin(settings.margin)
    check_compared(settings.compared)
    check_expected_std(settings.expected_std)
    check_primary(settings)
    check_primary_column(settings.primary_column, settings.compared)
    check_chooser(settings.chosen_by)
    content = {
        "title": title,
        "command": ["-m", *words],
        "config_dir": str(Path(config_dir).resolve()) if config_dir else None,
        "folder": str(Path.cwd()),
        **{key: getattr(settings, key) for key in RECORDED},
        "overrides": list(last_wins([*settings.overrides, *fixed_words(of_jobs)])),
        "launcher": OmegaConf.to_container(launcher, resolve=True),
    }
    message = f"{describe_jobs(variations, settings)}: checking the configuration"
    console.print(message, highlight=False, markup=False)
    if settings.expected_std is not None:
        console.print(power_of(settings, variations), highlight=False, markup=False)
    if settings.search is not None:
        if settings.chosen_by != OBJECTIVE:
            raise UserError(
                f"a search tries for the highest {OBJECTIVE}, so nothing else can choose its row, "
                f"got {settings.chosen_by} (sweep.chosen_by=…)"
            )
        check_search(settings.search, variations[0], of_jobs)
        examples = example_values(settings.search)
        variations = [plan.variation_of(content, values) for values in examples]
    specs, rows = plan.job_specs(
        variations, folder=content["folder"], config_dir=content["config_dir"]
    )
    if settings.search is None and any(word.startswith("sweep.pairs=") for word in of_sweep):
        check_pairs(settings, specs)
    directory = directory_for(settings.dir, Path(rows[0].outputs) / "sweeps", title)
    for spec in specs if settings.search is None else []:
        create_job(directory / "jobs" / f"{spec.number:04d}", replace(spec, sweep=directory.name))
    jobs = None if settings.search else len(specs)
    needs = {word for part in (*rows, launcher, settings.search) for word in needed_words(part)}
    content = {"name": directory.name, "jobs": jobs, **content, "needs": sorted(needs)}
    write_kept(directory, {"sweep.yaml": OmegaConf.to_yaml(OmegaConf.create(content))})
    return directory


def check_pairs(settings: Settings, specs: Sequence[JobSpec]) -> None:
    """Raises ``UserError`` if a pair of the command line names rows that the sweep will not have.
    Those of a preset are left out then, as it may be run with fewer rows.
    """
    jobs = [JobResult(spec.sweep, spec.number, spec.variant, spec.axes) for spec in specs]
    resolve(settings.pairs, jobs, settings.data_sets)


def check_primary(settings: Settings) -> None:
    """Raises ``UserError`` if a primary contrast is not one of the pairs, or if it is not said in
    which of several metrics it is tested.
    """
    if settings.primary and len(settings.compared) > 1 and settings.primary_column is None:
        raise UserError(
            f"primary contrasts need one column that answers the question, got the metrics "
            f"{', '.join(settings.compared)} (sweep.primary_column=…, such as test/a/accuracy)"
        )
    for pair in settings.primary:
        if pair not in settings.pairs:
            raise UserError(
                f"a primary contrast must be one of sweep.pairs, got {pair} (sweep.primary=…)"
            )


def power_of(settings: Settings, variations: Sequence[plan.Variation]) -> str:
    """What the sweep can show with its seeds, if differences vary as ``expected_std`` says."""
    seeds = {variation.axes.get("seed") for variation in variations}
    if any(key_of(word) == "data.resample" for word in variations[0].overrides):
        return (
            "Power: resamples of one data set have samples in common, so it depends on how many "
            "samples are train and test; the tables of the sweep say it."
        )
    data_sets = {tuple(str(v.axes.get(key)) for key in settings.data_sets) for v in variations}
    contrasts = len(settings.primary or settings.pairs) * len(data_sets)
    return planned_power(settings.expected_std, len(seeds), contrasts)


def describe_jobs(variations: Sequence[plan.Variation], settings: Settings) -> str:
    """The number of jobs, and how it is composed."""
    if settings.search is not None:
        return f"A search of {settings.search['trials']} trials"
    rows = len({variation.variant for variation in variations})
    per_row = len(variations) // rows
    jobs = "1 job" if len(variations) == 1 else f"{len(variations)} jobs"
    return jobs if per_row == 1 or rows == 1 else f"{jobs} ({rows} variants x {per_row})"


def directory_for(requested: str | None, sweeps: Path, title: str) -> Path:
    """Makes the directory of a new sweep.

    Args:
        requested: ``sweep.dir``.
        sweeps: where the directory is made if ``sweep.dir`` is not set.
    """
    if requested is None:
        return new_directory(sweeps, title).resolve()
    if not requested.strip():
        raise UserError("sweep.dir must be a path, got an empty one (sweep.dir=…)")
    directory = Path(requested).resolve()
    if (directory / "sweep.yaml").exists():
        raise UserError(
            f"sweep.dir={requested} holds a sweep already: resume it by "
            f"python -m kd_lightning.sweep {requested} --resume"
        )
    if any(directory.glob("jobs/*/progress.json")):
        raise UserError(f"sweep.dir={requested} holds jobs of a sweep: choose another")
    for job in jobs_of(directory):  # left by a sweep that was killed while it was created
        (job.directory / "job.json").unlink()
    make_directory(directory / "jobs", "sweep.dir")
    return directory


def check_search(settings: dict[str, Any], variation: plan.Variation, words: Sequence[str]) -> None:
    """Checks the settings of a search, and makes the path of its storage absolute.

    Args:
        variation: the job that the command line would be without the search.
        words: of the command line, for the jobs.

    Raises:
        UserError: a setting is not valid.
    """
    if variation.axes:
        raise UserError(
            f"{next(iter(variation.axes))} varies, and a search chooses its jobs itself: give it "
            "one value, or put it into sweep.search.space"
        )
    for word in words:
        if key_of(word) in settings["space"]:
            raise UserError(
                f"{word} has no effect, because the search chooses the value: leave "
                "it out, or write a space without it (sweep.search.space)"
            )
    check_arguments(OmegaConf.create(settings), arguments_of(search.Settings), "sweep.search")
    check_targets(OmegaConf.create(settings), "sweep.search")
    total_trials(settings)
    if relative := re.fullmatch(r"sqlite:///(?!/)(.+)", settings["storage"] or ""):
        settings["storage"] = f"sqlite:///{Path(relative[1]).resolve()}"


def example_values(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Values for the keys of a search's space, to check that its jobs can be composed: each choice,
    and both ends of each interval.
    """
    tried = {
        key: list(d.choices) if hasattr(d, "choices") else [d.low, d.high]
        for key, d in search.distributions_of(settings["space"]).items()
    }
    longest = max(map(len, tried.values()))
    return [
        {key: values[min(number, len(values) - 1)] for key, values in tried.items()}
        for number in range(longest)
    ]


def total_trials(settings: Mapping[str, Any]) -> int:
    """How many jobs a search will have."""
    search_settings = search.Settings(**settings)
    return search.total_of(search_settings, search.distributions_of(search_settings.space))


def build_launcher(config: DictConfig) -> Any:
    """Builds the launcher of a configuration; a wrong key or value is a ``UserError``."""
    check_targets(config, "launcher")
    return instantiate(config, _convert_="object")
