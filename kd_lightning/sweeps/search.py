"""A search: which jobs there are follows from how the earlier ones did.

Optuna proposes, by ask and tell; the jobs are those of any sweep. What was asked and told is in
Optuna's own storage, so any number of processes, on any machine that reaches it, work on one
search, and a search that was killed goes on. A job that failed is not told: it is run again when
the sweep is resumed.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.utils import get_object, instantiate

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.streams import stream_seed
from kd_lightning.callbacks.pruning import need_optuna, storage_in
from kd_lightning.config.schema import arguments_of
from kd_lightning.records.jobs import Job, Order, create, jobs_of

Distributions = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``search`` of a preset says; ``conf/sweep/search.yaml`` explains each."""

    trials: int
    seed: int
    space: dict[str, dict]
    sampler: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    storage: str | None = None


class Search:
    """The jobs of a search.

    Args:
        directory: of the sweep.
        study: its name in Optuna's storage.
        settings: ``search`` of the preset.
        order: makes the order of a job, given its number and its overrides by key.

    Attributes:
        jobs: those there are by now.
        total: how many there will be.
    """

    def __init__(
        self,
        directory: Path,
        study: str,
        settings: Settings,
        order: Callable[[int, Mapping[str, Any]], Order],
    ) -> None:
        self.directory = directory
        self.name = study
        self.settings = settings
        self.order = order
        self.distributions = distributions_of(settings.space)
        self.total = total_of(settings, self.distributions)
        storage = settings.storage or storage_in(directory)
        self.storage = need_optuna().storages.get_storage(storage)
        self.jobs = jobs_of(directory)
        self._lock = FileLock(directory / ".search.lock")

    def study(self, number: int = 0) -> Any:
        """Optuna's study. What it proposes for a trial follows from the seed, the trial's number
        and the trials before it, not from who asks.
        """
        optuna = need_optuna()
        facts = {
            "seed": stream_seed("search", self.settings.seed, number) % 2**31,
            "search_space": lambda: grid_of(self.distributions),
        }
        node = self.settings.sampler
        known = arguments_of(get_object(node["_target_"])).known
        given = {k: v() if callable(v) else v for k, v in facts.items() if k in known}
        return optuna.create_study(
            study_name=self.name,
            storage=self.storage,
            direction="maximize",
            load_if_exists=True,
            sampler=instantiate({**given, **node}, _convert_="object"),
            pruner=instantiate(self.settings.pruner, _convert_="object"),
        )

    def todo(self) -> Iterator[Job]:
        """First the jobs that were begun and are not over, then new ones, as they are asked for."""
        with self._lock:  # or another worker's trial may be half asked for
            begun = [trial for trial in self.study().trials if not trial.state.is_finished()]
            jobs = [self._job(self._whole(trial)) for trial in begun]
        held = []
        for job in jobs:
            if job.is_over():
                self.heard(job)
            elif job.is_held():
                held.append(job)
            else:
                yield job
        while (job := self._ask()) is not None:
            yield job
        for job in held:  # another worker will tell of it, unless that one is gone
            if not job.is_over():
                yield job

    def heard(self, job: Job) -> None:
        """Tells Optuna how a job ended; a failed one is not told."""
        optuna = need_optuna()
        self.jobs[:] = jobs_of(self.directory)  # other workers' too
        metrics, told = job.metrics(), {}
        if metrics is not None:
            told = {"values": metrics["objective"]}
        elif job.is_over():
            told = {"state": optuna.trial.TrialState.PRUNED}
        if told:
            with suppress(
                RuntimeError
            ):  # the grid's sampler wants to stop a loop that is not there
                self.study().tell(job.number, skip_if_finished=True, **told)

    def best(self) -> Job | None:
        """The finished job with the highest val/accuracy; None before the first has finished."""
        done = [(metrics["objective"], job) for job in self.jobs if (metrics := job.metrics())]
        return max(done, key=lambda pair: pair[0])[1] if done else None

    def _ask(self) -> Job | None:
        with self._lock:  # or two workers would both take the last one
            number = len(self.study().trials)
            if number >= self.total:
                return None
            return self._job(self.study(number).ask(self.distributions))

    def _whole(self, trial: Any) -> Any:
        """A trial with all its values: a worker that was killed may have asked for some of them."""
        if trial.params.keys() == self.distributions.keys():
            return trial
        study = self.study(trial.number)
        whole = need_optuna().trial.Trial(study, trial._trial_id)
        for key, one in self.distributions.items():
            if key in trial.params and not whole._is_relative_param(key, one):
                # drawn once more, so that what is drawn after it is what would have been
                study.sampler.sample_independent(study, trial, key, one)
            whole._suggest(key, one)
        return whole

    def _job(self, trial: Any) -> Job:
        directory = self.directory / "jobs" / f"{trial.number:04d}"
        if not (directory / "job.json").exists():
            about = {
                "study": self.name,
                "storage": self.settings.storage,
                "trial": trial.number,
                "pruner": self.settings.pruner,
            }
            create(directory, replace(self.order(trial.number, trial.params), search=about))
        job = Job(directory)
        if job not in self.jobs:
            self.jobs.append(job)
        return job


def distributions_of(space: Mapping[str, Mapping[str, Any]]) -> Distributions:
    """Optuna's distributions for the space of a preset.

    Raises:
        UserError: a key with neither choices nor low and high, or with values that do not fit.
    """
    optuna = need_optuna()
    if not space:
        raise UserError("sweep.search.space must have a key or more, got none")
    found = {}
    for key, words in space.items():
        place = f"sweep.search.space.{key}"
        for name in words:
            if name not in ("choices", "low", "high", "log", "step"):
                raise unknown("word", name, ["choices", "low", "high", "log", "step"], place)
        try:
            if "choices" in words and len(words) == 1:
                found[key] = optuna.distributions.CategoricalDistribution(words["choices"])
            elif {"low", "high"} <= words.keys() and "choices" not in words:
                ends = [words[name] for name in ("low", "high", "step") if name in words]
                kind = "Int" if all(isinstance(end, int) for end in ends) else "Float"
                found[key] = getattr(optuna.distributions, f"{kind}Distribution")(**words)
            else:
                raise UserError(
                    f"{place} must have choices, or low and high, got {json.dumps(dict(words))}"
                )
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{place} cannot be searched: {error}") from error
    return found


def total_of(settings: Settings, distributions: Distributions) -> int:
    """How many trials a search has: a grid may have fewer than were asked for."""
    if settings.trials < 1:
        raise UserError(f"sweep.search.trials must be >= 1, got {settings.trials}")
    if "search_space" in arguments_of(get_object(settings.sampler["_target_"])).known:
        cells = math.prod(len(values) for values in grid_of(distributions).values())
        return min(cells, settings.trials)
    return settings.trials


def grid_of(distributions: Distributions) -> dict[str, list[Any]]:
    """The values of each key, for a search over all combinations.

    Raises:
        UserError: a key that has no end of them.
    """
    grid = {}
    for key, one in distributions.items():
        if hasattr(one, "choices"):
            grid[key] = list(one.choices)
        elif one.step and not one.log:
            count = round((one.high - one.low) / one.step) + 1
            grid[key] = [one.low + i * one.step for i in range(count)]
        else:
            raise UserError(
                f"a grid needs choices or a step for each key, and sweep.search.space.{key} has "
                "neither: add step: …, or choose sampler@sweep.search.sampler=tpe"
            )
    return grid
