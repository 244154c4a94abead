"""A search by Optuna: which jobs are run next depends on the results of earlier jobs.

It uses Optuna's ask-and-tell interface: ``ask`` proposes the values of the next trial, ``tell``
gives Optuna its result. A trial is run as an ordinary job of the sweep. All trials are in Optuna's
storage, so several processes, on all machines that can reach the storage, can work on one search,
and a killed search can be resumed. The result of a failed job is not told to Optuna: the job is run
again when the sweep is resumed.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.utils import get_object, instantiate

from kd_lightning.base.errors import UserError, unknown
from kd_lightning.base.streams import stream_seed
from kd_lightning.callbacks.pruning import default_storage, need_optuna
from kd_lightning.config.schema import arguments_of
from kd_lightning.records.jobs import Job, JobSpec, create_job, jobs_of

Distributions = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys under ``search`` in a preset; ``conf/sweep/search.yaml`` explains each."""

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
        study: the name of the study in Optuna's storage.
        settings: those of the preset.
        make_spec: makes the specification of a job from its number and its values by key.

    Attributes:
        jobs: the jobs that exist so far.
        total: how many jobs there will be.
    """

    def __init__(
        self,
        directory: Path,
        study: str,
        settings: Settings,
        make_spec: Callable[[int, Mapping[str, Any]], JobSpec],
    ) -> None:
        self.directory = directory
        self.name = study
        self.settings = settings
        self.make_spec = make_spec
        self.distributions = distributions_of(settings.space)
        self.total = total_of(settings, self.distributions)
        storage = settings.storage or default_storage(directory)
        with as_user_error(storage):
            self.storage = need_optuna().storages.get_storage(storage)
            self.study()
        self.jobs = jobs_of(directory)
        self._lock = FileLock(directory / ".search.lock")

    def study(self, number: int = 0) -> Any:
        """Optuna's study. Its proposal for a trial depends only on the seed, the trial's number and
        the earlier trials, not on the process that asks.
        """
        optuna = need_optuna()
        available = {
            "seed": stream_seed("search", self.settings.seed, number) % 2**31,
            "search_space": lambda: grid_of(self.distributions),
        }
        sampler = self.settings.sampler
        accepted = arguments_of(get_object(sampler["_target_"])).known
        arguments = {k: v() if callable(v) else v for k, v in available.items() if k in accepted}
        return optuna.create_study(
            study_name=self.name,
            storage=self.storage,
            direction="maximize",
            load_if_exists=True,
            sampler=instantiate({**arguments, **sampler}, _convert_="object"),
            pruner=instantiate(self.settings.pruner, _convert_="object"),
        )

    def remaining(self) -> Iterator[Job]:
        """First the jobs that exist and are not over, then new ones, each made when it is needed.
        Jobs that another process is running come last.
        """
        with self._lock:  # otherwise another worker may be in the middle of an ask
            started = [trial for trial in self.study().trials if not trial.state.is_finished()]
            jobs = [self._job(self._complete(trial)) for trial in started]
        held = []
        for job in jobs:
            if job.is_over():
                self.job_ended(job)
            elif job.is_locked():
                held.append(job)
            else:
                yield job
        while (job := self._ask()) is not None:
            yield job
        for job in held:  # the other worker will tell its result, unless it was killed
            if not job.is_over():
                yield job

    def job_ended(self, job: Job) -> None:
        """Tells Optuna the result of a job, unless it failed."""
        optuna = need_optuna()
        self.jobs[:] = jobs_of(self.directory)  # including those of other workers
        metrics, result = job.metrics(), {}
        if metrics is not None:
            result = {"values": metrics["objective"]}
        elif job.is_over():
            result = {"state": optuna.trial.TrialState.PRUNED}
        if result:
            # After its last trial GridSampler stops the loop of study.optimize, which is not used.
            with suppress(RuntimeError):
                self.study().tell(job.number, skip_if_finished=True, **result)

    def best(self) -> Job | None:
        """The finished job with the highest val/accuracy; None before the first has finished."""
        done = [(metrics["objective"], job) for job in self.jobs if (metrics := job.metrics())]
        done = [pair for pair in done if pair[0] is not None]  # a run without val
        return max(done, key=lambda pair: pair[0])[1] if done else None

    def _ask(self) -> Job | None:
        """The job of a new trial; None if all trials exist."""
        with self._lock:  # otherwise two workers could both make the last trial
            number = len(self.study().trials)
            if number >= self.total:
                return None
            return self._job(self.study(number).ask(self.distributions))

    def _complete(self, trial: Any) -> Any:
        """A trial with all its values. A worker that was killed during the ask may have drawn only
        some of them.
        """
        if trial.params.keys() == self.distributions.keys():
            return trial
        study = self.study(trial.number)
        complete = need_optuna().trial.Trial(study, trial._trial_id)
        for key, distribution in self.distributions.items():
            if key in trial.params and not complete._is_relative_param(key, distribution):
                # Drawn again only to advance the random stream, so that the next values are the
                # same as without the interruption.
                study.sampler.sample_independent(study, trial, key, distribution)
            complete._suggest(key, distribution)
        return complete

    def _job(self, trial: Any) -> Job:
        """The job of a trial, whose directory is made if it does not exist."""
        directory = self.directory / "jobs" / f"{trial.number:04d}"
        if not (directory / "job.json").exists():
            about = {
                "study": self.name,
                "storage": self.settings.storage,
                "trial": trial.number,
                "pruner": self.settings.pruner,
            }
            create_job(directory, replace(self.make_spec(trial.number, trial.params), search=about))
        job = Job(directory)
        if job not in self.jobs:
            self.jobs.append(job)
        return job


@contextmanager
def as_user_error(storage: str) -> Iterator[None]:
    """Inside, an error of the data base is a ``UserError``."""
    from sqlalchemy.exc import SQLAlchemyError  # a package that Optuna needs

    try:
        yield
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or type(error).__name__
        raise UserError(
            f"the storage of the search, {storage}, cannot be read ({reason}): take it from a copy,"
            " or start a new search"
        ) from error


def distributions_of(space: Mapping[str, Mapping[str, Any]]) -> Distributions:
    """Optuna's distributions for the search space of a preset.

    Raises:
        UserError: a key has neither choices nor low and high, or its values are not valid.
    """
    optuna = need_optuna()
    if not space:
        raise UserError("sweep.search.space must have at least one key, got none")
    distributions = {}
    for key, words in space.items():
        place = f"sweep.search.space.{key}"
        for name in words:
            if name not in ("choices", "low", "high", "log", "step"):
                raise unknown("word", name, ["choices", "low", "high", "log", "step"], place)
        try:
            if "choices" in words and len(words) == 1:
                distributions[key] = optuna.distributions.CategoricalDistribution(words["choices"])
            elif {"low", "high"} <= words.keys() and "choices" not in words:
                ends = [words[name] for name in ("low", "high", "step") if name in words]
                kind = "Int" if all(isinstance(end, int) for end in ends) else "Float"
                distributions[key] = getattr(optuna.distributions, f"{kind}Distribution")(**words)
            else:
                raise UserError(
                    f"{place} must have choices, or low and high, got {json.dumps(dict(words))}"
                )
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{place} cannot be searched: {error}") from error
    return distributions


def total_of(settings: Settings, distributions: Distributions) -> int:
    """How many trials a search has. A grid may have fewer than ``settings.trials``."""
    if settings.trials < 1:
        raise UserError(f"sweep.search.trials must be >= 1, got {settings.trials}")
    if "search_space" in arguments_of(get_object(settings.sampler["_target_"])).known:
        cells = math.prod(len(values) for values in grid_of(distributions).values())
        return min(cells, settings.trials)
    return settings.trials


def grid_of(distributions: Distributions) -> dict[str, list[Any]]:
    """The values of each key, for a search over all combinations.

    Raises:
        UserError: a key has infinitely many values.
    """
    grid = {}
    for key, values in distributions.items():
        if hasattr(values, "choices"):
            grid[key] = list(values.choices)
        elif values.step and not values.log:
            count = round((values.high - values.low) / values.step) + 1
            grid[key] = [values.low + i * values.step for i in range(count)]
        else:
            raise UserError(
                f"a grid needs choices or a step for each key, and sweep.search.space.{key} has "
                "neither: add step: …, or choose sampler@sweep.search.sampler=tpe"
            )
    return grid
