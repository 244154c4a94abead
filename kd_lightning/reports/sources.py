"""Reads the results that a report is built from: of a sweep, of a written report, of single runs.

<sweep>/sweep.yaml, <sweep>/jobs/*/              a sweep, made by ``run -m``
<folder>/sweep.yaml, <folder>/records.jsonl      a report, written by ``report --out``
<folder>/*/config.yaml, <folder>/*/metrics.json  single runs; also the directory of one run
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.kept_files import read_json, read_text, with_keys
from kd_lightning.records.jobs import Job, State, jobs_of
from kd_lightning.records.run_directory import TEST_AGAIN, is_run
from kd_lightning.reports import correctness
from kd_lightning.reports.contents import read_hashes
from kd_lightning.reports.correctness import Correct
from kd_lightning.reports.job_results import FILE, JobResult, has_no_effect, portable, read_jsonl
from kd_lightning.reports.provenance import read_origin

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Keys that do not set single runs apart: names and places, what follows from the data or the seed,
# and which tests are made.
NOT_A_SETTING = (
    *("seed", "title", "run_dir", "resume", "task", "teacher.store", "method.seed", "data.seed"),
    *("evaluation", "allow"),
)
# These are ignored too if they equal the seed in all runs of a title.
MAY_FOLLOW_THE_SEED = ("data.split_seed", "data.resample", "teacher.seed")
# Arguments of nets that are usually facts of the data, and their names in ``task``.
FROM_DATA = {
    **{"num_classes": "num_classes", "in_chans": "channels", "num_inputs": "num_inputs"},
    **{"mean": "mean", "std": "std", "data_mean": "mean", "data_std": "std"},
    **{"data_size": "size", "shape": "shape", "imagenet_rows": "imagenet_rows"},
}
# The keys that name a data set, by default.
DATA_SETS = ("data", "data.name", "data.fold")


@dataclass(frozen=True)
class Source:
    """The results that a report is built from.

    Attributes:
        title: of the report.
        results: of its jobs.
        settings: the content of its ``sweep.yaml``.
        directory: the directory of the sweep, to which its report is written; None for single
            runs, and for several directories.
    """

    title: str
    results: Sequence[JobResult]
    settings: Mapping[str, Any] = field(default_factory=dict)
    directory: Path | None = None

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The keys that name a data set."""
        return tuple(self.settings.get("data_sets") or DATA_SETS)


def read(directories: Sequence[Path]) -> list[Source]:
    """Reads directories: one source for each sweep, and one source for all single runs together.

    Raises:
        UserError: there are no results, or a file cannot be read.
    """
    sources, runs, folders = [], [], []
    for directory in directories:
        if not directory.is_dir():
            raise UserError(f"no such directory: {directory}; expected a sweep or runs")
        source = _read_sweep(directory)
        found = [] if source else [path.parent for path in configurations(directory)]
        if source:
            sources.append(source)
        elif found:
            runs += found
            folders.append(directory.resolve().name)
        else:
            raise UserError(
                f"nothing to report on in {directory}: expected jobs/*/job.json, {FILE} or "
                "*/config.yaml in it"
            )
    return sources + [Source(" + ".join(folders), list(_read_runs(runs)))] * bool(runs)


def _read_sweep(directory: Path) -> Source | None:
    """A sweep's directory, or a folder with a written report; None if it is neither."""
    has_jobs = any(directory.glob("jobs/*/job.json"))
    if has_jobs:
        results = [_read_job(job) for job in jobs_of(directory)]
    elif (directory / FILE).exists():
        results = read_jsonl(directory / FILE)
        correct = correctness.read(directory / correctness.FILE, len(results))
        results = [replace(r, correct=c) for r, c in zip(results, correct, strict=True)]
    else:
        return None
    settings = _read_settings(directory)
    if not results:
        raise UserError(f"nothing to report on in {directory}: its {FILE} is empty")
    if has_jobs:  # the sweep.yaml of a written report has it already
        command, own = settings.get("command") or [], settings.get("config_dir")
        settings["made"] = read_origin(command, directory, own)
    title = settings.get("title") or results[0].sweep
    return Source(str(title), [portable(result) for result in results], settings, directory)


def _read_settings(directory: Path) -> dict[str, Any]:
    path = directory / "sweep.yaml"
    if not path.exists():
        raise UserError(
            f"the sweep in {directory} has no sweep.yaml: it was stopped before all its jobs were "
            "written, or the file was not copied; start the sweep again, or copy the file"
        )
    return _read_mapping(path)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(read_text(path), Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise Damaged(path, "is no valid YAML") from error
    return with_keys(content, path)


def _read_job(job: Job) -> JobResult:
    state, spec, path = job.state(), job.spec, job.directory / "config.yaml"
    config = _read_mapping(path) if path.exists() else {}
    return JobResult(
        sweep=spec.sweep,
        number=spec.number,
        variant=spec.variant,
        axes=spec.axes,
        overrides=tuple(spec.overrides),
        state=state,
        error=_last_line(job.error()) if state == State.FAILED else None,
        seeds=_seeds_of(config) if config else {},
        metrics=_read_metrics(job.directory) if state == State.DONE else None,
        hashes=read_hashes(config, job.directory),
        correct=correctness.of_run(job.directory) if state == State.DONE else Correct(),
    )


def _last_line(error: str | None) -> str | None:
    lines = (error or "").strip().splitlines()
    return lines[-1].strip() if lines else None


def _seeds_of(config: Mapping[str, Any]) -> dict[str, Any]:
    data = config.get("data") or {}
    return {
        "seed": config.get("seed"),
        "data.split_seed": data.get("split_seed"),
        "teacher.seed": (config.get("teacher") or {}).get("seed"),
        **({"data.resample": data["resample"]} if "resample" in data else {}),
    }


def _read_metrics(directory: Path) -> dict[str, Any]:
    path = directory / "metrics.json"
    metrics = read_json(path, advice=TEST_AGAIN)
    try:
        _ = JobResult("", 0, "", {}, metrics=metrics).values
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} does not hold the metrics of a run ({type(error).__name__}: {error}): "
            f"{TEST_AGAIN}"
        ) from error
    return metrics


def configurations(directory: Path) -> list[Path]:
    """The ``config.yaml`` of each single run: of the directory itself, or of the runs in it."""
    if is_run(directory):
        return [directory / "config.yaml"]
    return sorted(directory.glob("*/config.yaml"))


def _read_runs(directories: Sequence[Path]) -> Iterator[JobResult]:
    """Single runs. Runs with the same title are one variant; if they also differ in settings, each
    combination of these settings is a variant.
    """
    configs = [_read_mapping(path / "config.yaml") for path in directories]
    titles = [_title(config) for config in configs]
    settings = [_chosen_settings(config) for config in configs]
    for number, (path, title) in enumerate(zip(directories, titles, strict=True)):
        same_title = [s for s, other in zip(settings, titles, strict=True) if other == title]
        own = settings[number]
        varied = {k: v for k, v in own.items() if any(k not in s or s[k] != v for s in same_title)}
        seeds = [
            config.get("seed") for config, t in zip(configs, titles, strict=True) if t == title
        ]
        for key in MAY_FOLLOW_THE_SEED:
            if all(s.get(key) == seed for s, seed in zip(same_title, seeds, strict=True)):
                varied.pop(key, None)
        words = [f"{key}={value}" for key, value in varied.items()]
        done = (path / "metrics.json").exists()
        result = JobResult(
            sweep=path.resolve().name,
            number=None,
            variant=" ".join([title, *words]),
            axes={**varied, "seed": configs[number].get("seed")},
            state=State.DONE if done else State.STOPPED,
            seeds=_seeds_of(configs[number]),
            metrics=_read_metrics(path) if done else None,
            hashes=read_hashes(configs[number], path),
            correct=correctness.of_run(path) if done else Correct(),
        )
        yield portable(result)


def _title(config: Mapping[str, Any]) -> str:
    """The title that ``run.py`` gives a run with this configuration."""
    if config.get("title"):
        return str(config["title"])
    method, data = config.get("method") or {}, config.get("data") or {}
    module = [str(part.get("_target_", "?.?")).split(".")[-2] for part in (method, data)]
    return f"{module[0]} on {data.get('name') or module[1]}"


def _chosen_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run without those that follow from its data."""
    task = config.get("task") or {}

    def follows(key: str, value: Any) -> bool:
        fact = FROM_DATA.get(key.rpartition(".")[2])
        return fact in task and task[fact] == value

    return {key: value for key, value in _settings_of(config) if not follows(key, value)}


def _settings_of(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key that may change a run's numbers, with its value."""
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in NOT_A_SETTING:
            continue
        if isinstance(value, dict):
            yield from _settings_of(value, f"{key}.")
        elif not has_no_effect(key):
            yield key, value
