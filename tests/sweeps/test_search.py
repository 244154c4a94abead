"""Several processes work on one search, and a killed search is resumed."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked_runs import run_on_two_ranks
from helpers import TINY
from omegaconf import OmegaConf
from rich.console import Console

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.records.jobs import Job, JobSpec, State, jobs_of
from kd_lightning.sweeps import create, engine
from kd_lightning.sweeps.preset import settings_of
from kd_lightning.sweeps.search import Search, Settings, distributions_of, grid_of

optuna = pytest.importorskip("optuna")

SPACE = {"method.temperature": {"low": 1.0, "high": 16.0, "log": True}, "seed": {"choices": [0, 1]}}


def settings(sampler: str = "tpe", pruner: str = "none", **changed) -> Settings:
    words = [f"sampler@sweep.search.sampler={sampler}", f"pruner@sweep.search.pruner={pruner}"]
    preset = settings_of(["sweep=search", *words], None)[0].search
    return Settings(**{**preset, "space": SPACE, "trials": 8, **changed})


def make_spec(number: int, values: dict) -> JobSpec:
    return JobSpec(number=number, variant=str(values), axes=values, overrides=[])


def search(directory: Path, **changed) -> Search:
    directory.mkdir(exist_ok=True)
    return Search(directory, "study", settings(**changed), make_spec)


def finish(job: Job) -> None:
    temperature = job.spec.axes["method.temperature"]
    (job.directory / "metrics.json").write_text(json.dumps({"objective": 1 / temperature}))


def values(search: Search) -> list[dict]:
    return [trial.params for trial in search.study().trials]


def test_a_damaged_storage_is_named(tmp_path: Path) -> None:
    (tmp_path / "search.db").write_bytes(b"no data base" * 100)
    with pytest.raises(UserError, match=r"search\.db, cannot be read \(file is not a database\)"):
        search(tmp_path)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_tried_values_depend_on_the_seed(sampler: str, tmp_path: Path) -> None:
    tried = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        seeded = search(tmp_path / name, sampler=sampler, seed=seed)
        for job in seeded.remaining():
            finish(job)
            seeded.job_ended(job)
        assert len(seeded.jobs) == 8
        tried.append(values(seeded))
    assert tried[0] == tried[1] != tried[2]
    assert len({str(trial) for trial in tried[0]}) == 8


def test_a_search_stopped_at_any_point_continues_as_if_it_had_not_been(tmp_path: Path) -> None:
    undisturbed = search(tmp_path / "undisturbed")
    for job in undisturbed.remaining():
        finish(job)
        undisturbed.job_ended(job)
    for _ in range(20):  # a new process for every job, killed at one of three moments
        stopped = search(tmp_path / "stopped")
        job = next(stopped.remaining(), None)
        if job is None:
            break
        if len(stopped.jobs) % 3 == 0:
            resumed = search(tmp_path / "stopped")  # killed after the job was made
            assert next(resumed.remaining()) == job
        finish(job)
        if len(stopped.jobs) % 3 == 1:
            continue  # killed after the job, before its result was told
        stopped.job_ended(job)
    assert values(stopped) == values(undisturbed)
    assert [t.value for t in stopped.study().trials] == [
        t.value for t in undisturbed.study().trials
    ]


def test_a_trial_without_a_directory_gets_one(tmp_path: Path) -> None:
    killed = search(tmp_path)
    killed.study(0).ask(killed.distributions)  # killed before the job's directory was made
    job = next(search(tmp_path).remaining())
    assert (job.number, job.spec.axes) == (0, killed.study().trials[0].params)
    assert job.spec.search["trial"] == 0


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
@pytest.mark.parametrize("num_drawn", [0, 1])
def test_a_trial_with_only_some_of_its_values_gets_the_others(
    num_drawn: int, sampler: str, tmp_path: Path
) -> None:
    space = {"method.temperature": {"low": 1, "high": 5, "step": 2}, "seed": {"choices": [0, 1]}}
    undisturbed = search(tmp_path / "undisturbed", sampler=sampler, space=space)
    expected = next(undisturbed.remaining()).spec.axes
    killed = search(tmp_path / "half", sampler=sampler, space=space)
    drawn = dict(list(killed.distributions.items())[:num_drawn])
    killed.study(0).ask(drawn)  # killed in the middle
    assert len(killed.study().trials[0].params) == num_drawn
    assert (
        next(search(tmp_path / "half", sampler=sampler, space=space).remaining()).spec.axes
        == expected
    )


def test_a_job_of_a_killed_worker_is_run_at_the_end(tmp_path: Path) -> None:
    killed = search(tmp_path, trials=2)
    first = next(killed.remaining())
    with first.locked():  # by a job that has not noticed yet that its sweep was killed
        source = search(tmp_path, trials=2).remaining()
        second = next(source)
        assert second != first
    assert next(source) == first


def test_two_workers_share_one_search_and_never_one_job(tmp_path: Path) -> None:
    workers = [search(tmp_path), search(tmp_path)]
    sources = [worker.remaining() for worker in workers]
    taken: list[Job] = []
    with_job: list[Job | None] = [None, None]
    holds = [None, None]
    for turn in range(40):
        i = turn % 2
        if with_job[i] is not None:
            finish(with_job[i])
            holds[i].__exit__(None, None, None)
            workers[i].job_ended(with_job[i])
        with_job[i] = next(sources[i], None)
        if with_job[i] is None:
            continue
        taken.append(with_job[i])
        holds[i] = with_job[i].locked()
        holds[i].__enter__()
    assert sorted(job.number for job in taken) == list(range(8))
    states = [trial.state for trial in workers[0].study().trials]
    assert states == [optuna.trial.TrialState.COMPLETE] * 8


def test_the_result_of_a_failed_trial_is_not_told_and_the_job_runs_again(tmp_path: Path) -> None:
    failing = search(tmp_path)
    job = next(failing.remaining())
    (job.directory / "error.txt").write_text("it failed")
    failing.job_ended(job)
    assert not failing.study().trials[0].state.is_finished()
    assert next(search(tmp_path).remaining()) == job


def test_the_grid_has_every_combination_once(tmp_path: Path) -> None:
    space = {"method.temperature": {"low": 1, "high": 5, "step": 2}, "seed": {"choices": [0, 1]}}
    grid = search(tmp_path, sampler="grid", space=space, trials=100)
    assert grid.total == 6
    for job in grid.remaining():
        finish(job)
        grid.job_ended(job)
    tried = sorted((t["method.temperature"], t["seed"]) for t in values(grid))
    assert tried == [(t, s) for t in (1, 3, 5) for s in (0, 1)]


def test_the_best_is_the_best_on_val(tmp_path: Path) -> None:
    finished = search(tmp_path)
    assert finished.best() is None
    for job in finished.remaining():
        finish(job)
        finished.job_ended(job)
    assert finished.best().spec.axes == finished.study().best_params


@pytest.mark.parametrize(
    ("space", "kinds"),
    [
        ({"a": {"low": 1, "high": 5}}, "Int"),
        ({"a": {"low": 1, "high": 5.0}}, "Float"),
        ({"a": {"low": 1.0, "high": 5.0, "log": True}}, "Float"),
        ({"a": {"choices": ["x", None]}}, "Categorical"),
    ],
)
def test_a_space_becomes_distributions_of_optuna(space: dict, kinds: str) -> None:
    assert type(distributions_of(space)["a"]).__name__ == f"{kinds}Distribution"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "sweep.search.space must have at least one key"),
        ({"a": {"low": 1}}, "sweep.search.space.a must have choices, or low and high"),
        ({"a": {"low": 1, "hgih": 2}}, "unknown word 'hgih': did you mean high"),
        ({"a": {"low": 5, "high": 1}}, "sweep.search.space.a cannot be searched"),
        ({"a": {"choices": []}}, "sweep.search.space.a cannot be searched"),
    ],
)
def test_an_invalid_space_is_refused(space: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        distributions_of(space)


def test_a_grid_needs_a_finite_number_of_values() -> None:
    with pytest.raises(UserError, match=r"a grid needs choices or a step .* sweep.search.space.a"):
        grid_of(distributions_of({"a": {"low": 0.0, "high": 1.0}}))


def start(*words: str, module: str = "run") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"kd_lightning.{module}", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "250"},
    )


@pytest.mark.slow
def test_a_search_with_pruning_is_killed_resumed_by_two_workers_and_ends_with_a_command(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "sweep"
    sweep = start(
        "-m", *TINY, "sweep=search", "sweep.search.trials=10", "data.num_train=480",
        "trainer.max_epochs=9", "pruner@sweep.search.pruner=halving",
        "sweep.search.pruner.min_resource=2", f"outputs={tmp_path}", f"sweep.dir={directory}",
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while sum(job.is_over() for job in jobs_of(directory)) < 2:
        assert time.monotonic() < deadline
        assert sweep.poll() is None
        time.sleep(0.1)
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate()
    other = start(str(directory), "--resume", module="sweep")
    while not any(job.state() is State.RUNNING for job in jobs_of(directory)):
        assert time.monotonic() < deadline
        assert other.poll() is None
        time.sleep(0.02)
    launcher = create.build_launcher(engine.launcher_config(directory, []))
    engine.run_sweep(directory, launcher, Console(quiet=True))  # the second worker
    printed, _ = other.communicate(timeout=280)
    assert other.returncode == 0, printed
    said = Console(file=io.StringIO(), width=250)
    assert engine.run_sweep(directory, launcher, said)  # nothing is left to run
    jobs = jobs_of(directory)
    states = [job.state() for job in jobs]
    assert len(jobs) == 10
    assert set(states) == {State.DONE, State.PRUNED}
    for job in jobs:  # a pruned job has stopped early, after a whole epoch
        if job.state() is State.PRUNED:
            rows = (job.directory / "epochs.csv").read_text().splitlines()
            pruned = json.loads((job.directory / "pruned.json").read_text())
            assert len(rows) - 1 == pruned["epoch"] < 9
            assert job.spec.search["trial"] == job.number
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{directory}/search.db")
    assert len(study.trials) == 10
    complete = [trial.state is optuna.trial.TrialState.COMPLETE for trial in study.trials]
    assert complete == [state is State.DONE for state in states]
    assert study.best_value == max(
        job.metrics()["objective"] for job in jobs if job.state() is State.DONE
    )
    lines = said.file.getvalue().splitlines()
    (best,) = [line for line in lines if line.startswith("Best on val: ")]
    content = OmegaConf.load(directory / "sweep.yaml")
    for word in content.overrides:
        assert word in best
    assert f"method.temperature={study.best_params['method.temperature']}" in best
    distill(*best.removeprefix("Best on val: python -m kd_lightning.run ").split())


@pytest.mark.slow
def test_a_search_without_a_validation_set_is_refused(tmp_path: Path) -> None:
    words = [*TINY, "sweep=search", "sweep.search.trials=1", "data.val_fraction=0"]
    said = Console(file=io.StringIO(), width=250)
    words += [f"sweep.dir={tmp_path}/s", f"outputs={tmp_path}"]
    directory = create.create_sweep(words, None, said)
    launcher = create.build_launcher(engine.launcher_config(directory, []))
    assert not engine.run_sweep(directory, launcher, said)
    reason = "a search needs a val part to choose by (data.val_fraction=…)"
    assert reason in said.file.getvalue()


@pytest.mark.slow
def test_a_trial_on_two_ranks_ends_on_both(tmp_path: Path) -> None:
    two = ["hardware=ddp", "hardware.devices=2", "hardware.accelerator=cpu"]
    words = [*TINY, *two, "sweep=search", "sweep.search.trials=1"]
    words += [f"sweep.dir={tmp_path}/s", f"outputs={tmp_path}"]
    words.remove("hardware=cpu")
    directory = create.create_sweep(words, None, Console(quiet=True))
    (job,) = engine.open_search(directory, engine.read_settings(directory), ()).remaining()
    run_on_two_ranks(tmp_path / "ranks", str(job.directory), program="kd_lightning.work")
    assert job.state() is State.DONE


def test_a_relative_path_of_the_storage_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["sweep=search", "sweep.search.storage=sqlite:///my.db", "data=synthetic"]
    directory = create.create_sweep([*words, "sweep.dir=s"], None, Console(quiet=True))
    content = engine.read_settings(directory)
    assert content["search"]["storage"] == f"sqlite:///{tmp_path}/my.db"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sweep.search.space={method.confidence_threshold:{low:0.0,high:3.0}}"],
         r"confidence_threshold must be in \[0, 1\], got 3"),
        (["method.temperature=4"], "method.temperature=4 has no effect, because the search choose"),
    ],
)  # fmt: skip
def test_a_value_that_no_trial_could_have_is_refused_before_the_first(
    words: list[str], sentence: str, tmp_path: Path
) -> None:
    asked = ["sweep=search", "data=synthetic", f"sweep.dir={tmp_path / 's'}", *words]
    with pytest.raises(UserError, match=sentence):
        create.create_sweep(asked, None, Console(quiet=True))
    assert not (tmp_path / "s").exists()


def test_each_choice_and_both_ends_are_tried_before_the_first_trial() -> None:
    space = {"method": {"choices": ["kd", "dual_student", "r_drop"]}, "x": {"low": 1, "high": 5}}
    assert create.example_values({"space": space}) == [
        {"method": "kd", "x": 1},
        {"method": "dual_student", "x": 5},
        {"method": "r_drop", "x": 5},
    ]
