"""Where a report's records come from: a sweep, its packed form, runs that were started one by one.

<sweep>/sweep.yaml, <sweep>/jobs/*/             what ``run -m`` makes
<packed>/sweep.yaml, <packed>/records.jsonl     what ``report --out`` makes
<folder>/*/config.yaml, <folder>/*/metrics.json ordinary runs; also one such run by itself
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kd_lightning.base.errors import UserError
from kd_lightning.records.jobs import Job, State, jobs_of
from kd_lightning.reports.job_results import FILE, JobResult, is_elsewhere, portable, unpacked
from kd_lightning.reports.provenance import made_by

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# of a run's configuration: a name, what follows from its data or its seed, or what it is tested for
NOT_A_SETTING = (
    *("seed", "title", "run_dir", "resume", "task", "teacher.store", "method.seed", "data.seed"),
    "evaluation",
)
MAY_FOLLOW_THE_SEED = ("data.split_seed", "teacher.seed")  # where they do in all runs of a title
DATA_SETS = ("data", "data.name", "data.fold")


@dataclass(frozen=True)
class Source:
    """Records that belong together.

    Attributes:
        title: of the report.
        records: of its jobs.
        settings: the content of its ``sweep.yaml``.
        home: the directory of a sweep, where its report belongs; None for runs, and for several.
    """

    title: str
    records: Sequence[JobResult]
    settings: Mapping[str, Any] = field(default_factory=dict)
    home: Path | None = None

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The keys that name a data set."""
        return tuple(self.settings.get("data_sets") or DATA_SETS)


def read(directories: Sequence[Path]) -> list[Source]:
    """The records of some directories: a source for each sweep, and one for all runs together.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    sources, runs, folders = [], [], []
    for directory in directories:
        if not directory.is_dir():
            raise UserError(f"no such directory: {directory}; expected that of a sweep, or of runs")
        source = _of_sweep(directory)
        found = [] if source else [path.parent for path in _configurations(directory)]
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
    return sources + [Source(" + ".join(folders), list(_of_runs(runs)))] * bool(runs)


def _of_sweep(directory: Path) -> Source | None:
    is_live = any(directory.glob("jobs/*/job.json"))
    if is_live:
        records = [_of_job(job) for job in jobs_of(directory)]
    elif (directory / FILE).exists():
        records = unpacked(directory / FILE)
    else:
        return None
    settings = _settings(directory)
    if not records:
        raise UserError(f"nothing to report on in {directory}: its {FILE} is empty")
    if is_live:  # a packed one has kept it
        settings["made"] = made_by(settings.get("command") or [], directory)
    title = settings.get("title") or records[0].sweep
    return Source(str(title), [portable(record) for record in records], settings, directory)


def _settings(directory: Path) -> dict[str, Any]:
    path = directory / "sweep.yaml"
    if not path.exists():
        raise UserError(
            f"the sweep in {directory} has no sweep.yaml: it was stopped before its plan was "
            "whole, or the file was left behind; start it again, or bring the file"
        )
    return _mapping(path)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"expected keys and values in {path}, got {type(content).__name__}")
    return content


def _of_job(job: Job) -> JobResult:
    state = job.state()
    try:
        order = job.order
    except (ValueError, TypeError) as error:
        raise UserError(f"cannot read {job.directory / 'job.json'}: {error}") from error
    return JobResult(
        sweep=order.sweep,
        number=order.number,
        variant=order.variant,
        axes=order.axes,
        overrides=tuple(order.overrides),
        state=state,
        error=_last_line(job.error()) if state == State.FAILED else None,
        seeds=_seeds(job.directory),
        metrics=_metrics(job.directory) if state == State.DONE else None,
    )


def _last_line(error: str | None) -> str | None:
    lines = (error or "").strip().splitlines()
    return lines[-1].strip() if lines else None


def _seeds(directory: Path) -> dict[str, Any]:
    path = directory / "config.yaml"
    return _seeds_in(_mapping(path)) if path.exists() else {}


def _seeds_in(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seed": config.get("seed"),
        "data.split_seed": (config.get("data") or {}).get("split_seed"),
        "teacher.seed": (config.get("teacher") or {}).get("seed"),
    }


def _metrics(directory: Path) -> dict[str, Any]:
    path = directory / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        _ = JobResult("", 0, "", {}, metrics=metrics).values
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is no record of a run ({type(error).__name__}: {error}): remove it, and do "
            "its run again"
        ) from error
    return metrics


def _configurations(directory: Path) -> list[Path]:
    own = directory / "config.yaml"
    return [own] if own.exists() else sorted(directory.glob("*/config.yaml"))


def _of_runs(directories: Sequence[Path]) -> Iterator[JobResult]:
    """Runs of one title are one variant; what else differs between them names variants of it."""
    configs = [_mapping(path / "config.yaml") for path in directories]
    titles = [_title(config) for config in configs]
    settings = [dict(_settings_in(config)) for config in configs]
    for number, (path, title) in enumerate(zip(directories, titles, strict=True)):
        alike = [s for s, other in zip(settings, titles, strict=True) if other == title]
        own = settings[number]
        varied = {k: v for k, v in own.items() if any(k not in s or s[k] != v for s in alike)}
        seeds = [
            config.get("seed") for config, t in zip(configs, titles, strict=True) if t == title
        ]
        for key in MAY_FOLLOW_THE_SEED:
            if all(s.get(key) == seed for s, seed in zip(alike, seeds, strict=True)):
                varied.pop(key, None)
        words = [f"{key}={value}" for key, value in varied.items()]
        done = (path / "metrics.json").exists()
        record = JobResult(
            sweep=path.resolve().name,
            number=None,
            variant=" ".join([title, *words]),
            axes={**varied, "seed": configs[number].get("seed")},
            state=State.DONE if done else State.STOPPED,
            seeds=_seeds_in(configs[number]),
            metrics=_metrics(path) if done else None,
        )
        yield portable(record)


def _title(config: Mapping[str, Any]) -> str:
    """As ``run.py`` names a run."""
    if config.get("title"):
        return str(config["title"])
    method, data = config.get("method") or {}, config.get("data") or {}
    module = [str(part.get("_target_", "?.?")).split(".")[-2] for part in (method, data)]
    return f"{module[0]} on {data.get('name') or module[1]}"


def _settings_in(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that shapes a run's numbers, dotted, with its value."""
    for name, value in config.items():
        key = f"{above}{name}"
        if key in NOT_A_SETTING or is_elsewhere(key):
            continue
        if isinstance(value, dict):
            yield from _settings_in(value, f"{key}.")
        else:
            yield key, value
