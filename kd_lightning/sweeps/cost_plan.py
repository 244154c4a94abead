"""``--plan``: what a run or a sweep will cost, said before anything is trained.

    python -m kd_lightning.run --plan method=kd data=imagenet100 data.root=/data/imagenet
    python -m kd_lightning.run -m --plan sweep=imagenet100_cmc data.root=/data/imagenet

Every different training is measured once, in a few steps: neither seeds nor the mean and std of
the data change what a training costs. Teachers and baselines that several jobs share are counted
once, and those that are kept already are not counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from kd_lightning.base.disks import free_bytes
from kd_lightning.base.errors import UserError
from kd_lightning.base.files import format_bytes
from kd_lightning.base.tables import Table, print_tables
from kd_lightning.callbacks.progress_line import duration
from kd_lightning.config.command_line import check_one_run
from kd_lightning.models.by_shape import choose_nets
from kd_lightning.running.build import build_data, quieten
from kd_lightning.running.cost import MEASURED, WARM_UP, Cost, measure
from kd_lightning.sweeps import plan
from kd_lightning.sweeps.preset import settings_of
from kd_lightning.teachers.baselines import baseline_run, baselines_of, kept_name
from kd_lightning.teachers.net_names import factory
from kd_lightning.teachers.own_run import sources_of, teacher_run
from kd_lightning.teachers.sources import one_by_one
from kd_lightning.teachers.store import directory_of_run, shape_of

COSTLESS = ("seed", "split_seed", "mean", "std")  # keys that do not change what a training costs
HEADS = ("training", "runs", "epochs", "steps", "ms a step", "waits for data", "memory", "time")


@dataclass
class Training:
    """Runs that cost the same.

    Attributes:
        title: for people.
        cfg: of one of them.
        places: a name for each run. A run that several jobs share has one name.
        kept: those of ``places`` that are done.
    """

    title: str
    cfg: DictConfig
    places: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Facts:
    """What ``build_data`` adds to a configuration, and the fingerprint of the data."""

    task: DictConfig
    exif: str | None
    fingerprint: str


def show_plan(
    words: Sequence[str], config_dir: str | None, console: Console, *, is_sweep: bool
) -> None:
    """Prints what the runs of a command line will cost.

    Args:
        words: of the command line, without options.
        config_dir: a folder with the user's own YAML.
        is_sweep: whether the words are those of a sweep.

    Raises:
        UserError: a run could not start, or a search chooses the runs itself.
    """
    quieten()
    jobs = list(jobs_of_sweep(words, config_dir) if is_sweep else job_of_run(words, config_dir))
    found = trainings(jobs)
    todo = [one for one in found if one.places - one.kept]
    message = f"{len(todo)} different trainings: measuring a few steps of each"
    console.print(message, highlight=False, markup=False)
    costs = [measure(one.cfg.copy()) for one in todo]
    table = table_of(found, dict(zip(map(id, todo), costs, strict=True)))
    print_tables([table], console)


def job_of_run(words: Sequence[str], config_dir: str | None) -> Iterator[tuple[str, DictConfig]]:
    check_one_run(words)
    cfg = plan.compose_job(words, config_dir)
    if cfg.resume:
        raise UserError("--plan is for runs that have not begun: leave resume=… out")
    yield "students", cfg


def jobs_of_sweep(words: Sequence[str], config_dir: str | None) -> Iterator[tuple[str, DictConfig]]:
    """The name of the row and the configuration of each job of a sweep."""
    of_sweep, of_jobs = plan.split(words)
    settings, _, _ = settings_of(of_sweep, config_dir)
    if settings.search is not None:
        raise UserError(
            "--plan needs to know the jobs beforehand, and a search chooses them itself: plan one "
            "of its jobs, without -m and sweep=…"
        )
    for variation in plan.expand(settings, of_jobs):
        cfg = plan.compose_job(variation.overrides, config_dir, variation.shared)
        sets = [str(variation.axes[key]) for key in settings.data_sets if key in variation.axes]
        yield " on ".join(filter(None, [variation.variant or "students", *sets])), cfg


def trainings(jobs: Sequence[tuple[str, DictConfig]]) -> list[Training]:
    """All trainings of these jobs: first the teachers, then the baselines, then the students."""
    groups: dict[str, dict[str, Training]] = {"teachers": {}, "baselines": {}, "students": {}}
    known: dict[str, Facts] = {}
    for number, (title, cfg) in enumerate(jobs):
        fingerprint = with_facts(cfg, known)
        for kind, name, run, store in needed_runs(cfg):
            directory = directory_of_run(run, store, name, fingerprint)
            training = add(groups[kind], name, run, str(directory))
            if (directory / "metrics.json").exists():
                training.kept.add(str(directory))
        add(groups["students"], title, cfg, str(number))
    return [one for group in groups.values() for one in group.values()]


def with_facts(cfg: DictConfig, known: dict[str, Facts]) -> str:
    """Gives a configuration what a run learns from its data. Returns the fingerprint of the data.

    Args:
        known: by the settings of data; the same data are read once.
    """
    key = OmegaConf.to_yaml(OmegaConf.create({"data": resolved(cfg, "data")}))
    if key not in known:
        data = build_data(cfg)
        known[key] = Facts(cfg.task.copy(), cfg.data.get("exif"), data.fingerprint)
        return data.fingerprint
    facts = known[key]
    cfg.task = facts.task
    if "exif" in cfg.data:
        cfg.data.exif = facts.exif
    for method in (cfg.method, cfg.teacher.method):
        choose_nets(method, facts.task.shape)
    return facts.fingerprint


def resolved(cfg: DictConfig, key: str) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)[key]


def needed_runs(cfg: DictConfig) -> Iterator[tuple[str, str, DictConfig, Path]]:
    """The kind, the name, the configuration and the store of all runs that a run needs."""
    if "teacher" in cfg.method:
        for one in one_by_one(cfg) if OmegaConf.is_list(cfg.teacher.source) else [cfg]:
            if sources_of(one) == ["train"]:
                name = f"teacher-{factory(cfg.method.teacher)}"
                yield "teachers", name, teacher_run(one), Path(cfg.teacher.store)
    for name in baselines_of(cfg):
        store = Path(cfg.outputs) / "baselines"
        yield "baselines", kept_name(cfg, name), baseline_run(cfg, name), store


def add(group: dict[str, Training], title: str, cfg: DictConfig, place: str) -> Training:
    """The training of a group that costs what ``cfg`` costs, with one more run."""
    shape = without_costless({**shape_of(cfg), "hardware": resolved(cfg, "hardware")})
    key = f"{title} {shape}"
    training = group.setdefault(key, Training(title, cfg))
    training.places.add(place)
    return training


def without_costless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: without_costless(v) for k, v in value.items() if k not in COSTLESS}
    return [without_costless(v) for v in value] if isinstance(value, list) else value


def table_of(found: Sequence[Training], costs: Mapping[int, Sequence[Cost]]) -> Table:
    """A row for each training and each of its stages, and what all of them cost."""
    rows, seconds, disk = [], 0.0, 0
    for training in found:
        count = len(training.places - training.kept)
        for cost in costs.get(id(training), ()):
            seconds += count * cost.seconds
            disk += count * cost.disk
            rows.append(row_of(training, cost, count))
    if any(training.kept for training in found):
        rows += [
            [training.title, f"0, {len(training.kept)} kept", *[""] * (len(HEADS) - 2)]
            for training in found
            if not training.places - training.kept
        ]
    outputs = Path(found[-1].cfg.outputs)
    notes = [
        f"Together {duration(seconds)}, one run after another. Stages are counted for each run; "
        "those that several runs share are trained once.",
        f"Disk: {format_bytes(disk)} in {outputs}, where {format_bytes(free_bytes(outputs))} are "
        "free.",
        f"Measured on one device in {MEASURED} steps of each training, after {WARM_UP} others. Not "
        "counted: callbacks, loggers, writing to disk, and on several devices the exchange of "
        "gradients.",
    ]
    if any(training.cfg.teacher.cache for training in found):
        notes.append("Steps are measured without the teacher's cache, which makes them shorter.")
    return Table("plan", "What the runs will cost", HEADS, rows, notes)


def row_of(training: Training, cost: Cost, count: int) -> list[str]:
    is_stage = cost.title.startswith("stage ")
    title = f"{training.title}, {cost.title}" if is_stage else training.title
    return [
        title,
        str(count),
        f"{cost.epochs:.3g}",
        f"{cost.steps:,}",
        f"{1000 * cost.step:.3g}",
        f"{cost.waiting:.0%}",
        format_bytes(cost.memory),
        duration(count * cost.seconds),
    ]
