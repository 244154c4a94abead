"""A search is asked and told by any number of processes, and outlives all of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import TINY
from omegaconf import OmegaConf
from rich.console import Console

from kd_lightning.base.errors import UserError
from kd_lightning.records.jobs import Job, Order, State, jobs_of
from kd_lightning.sweeps import create, engine
from kd_lightning.sweeps.plan import settings_of
from kd_lightning.sweeps.search import Search, Settings, distributions_of, grid_of

optuna = pytest.importorskip("optuna")

SPACE = {"method.temperature": {"low": 1.0, "high": 16.0, "log": True}, "seed": {"choices": [0, 1]}}


def settings(sampler: str = "tpe", pruner: str = "none", **changed) -> Settings:
    words = [f"sampler@sweep.search.sampler={sampler}", f"pruner@sweep.search.pruner={pruner}"]
    preset = settings_of(["sweep=search", *words], None)[0].search
    return Settings(**{**preset, "space": SPACE, "trials": 8, **changed})


def order(number: int, values: dict) -> Order:
    return Order(number=number, variant=str(values), axes=values, overrides=[])


def search(directory: Path, **changed) -> Search:
    directory.mkdir(exist_ok=True)
    return Search(directory, "study", settings(**changed), order)


def finish(job: Job) -> None:
    temperature = job.order.axes["method.temperature"]
    (job.directory / "metrics.json").write_text(json.dumps({"objective": 1 / temperature}))


def values(one: Search) -> list[dict]:
    return [trial.params for trial in one.study().trials]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_is_tried_follows_from_the_seed(sampler: str, tmp_path: Path) -> None:
    tried = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        one = search(tmp_path / name, sampler=sampler, seed=seed)
        for job in one.todo():
            finish(job)
            one.heard(job)
        assert len(one.jobs) == 8
        tried.append(values(one))
    assert tried[0] == tried[1] != tried[2]
    assert len({str(trial) for trial in tried[0]}) == 8


def test_a_search_that_was_stopped_anywhere_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole")
    for job in whole.todo():
        finish(job)
        whole.heard(job)
    for _ in range(20):  # a new process for every job, killed at one of three moments
        one = search(tmp_path / "stopped")
        job = next(one.todo(), None)
        if job is None:
            break
        if len(one.jobs) % 3 == 0:
            continue_with = search(tmp_path / "stopped")  # asked for, and killed
            assert next(continue_with.todo()) == job
        finish(job)
        if len(one.jobs) % 3 == 1:
            continue  # done, and killed before it was told
        one.heard(job)
    assert values(one) == values(whole)
    assert [t.value for t in one.study().trials] == [t.value for t in whole.study().trials]


def test_what_was_asked_for_and_never_made_is_made(tmp_path: Path) -> None:
    one = search(tmp_path)
    one.study(0).ask(one.distributions)  # killed before the job's directory was there
    job = next(search(tmp_path).todo())
    assert (job.number, job.order.axes) == (0, one.study().trials[0].params)
    assert job.order.search["trial"] == 0


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
@pytest.mark.parametrize("asked", [0, 1])
def test_what_was_half_asked_for_is_asked_for_whole(
    asked: int, sampler: str, tmp_path: Path
) -> None:
    space = {"method.temperature": {"low": 1, "high": 5, "step": 2}, "seed": {"choices": [0, 1]}}
    whole = search(tmp_path / "whole", sampler=sampler, space=space)
    expected = next(whole.todo()).order.axes
    one = search(tmp_path / "half", sampler=sampler, space=space)
    one.study(0).ask(dict(list(one.distributions.items())[:asked]))  # killed in the middle
    assert len(one.study().trials[0].params) == asked
    assert (
        next(search(tmp_path / "half", sampler=sampler, space=space).todo()).order.axes == expected
    )


def test_a_job_of_a_worker_that_is_gone_is_done_in_the_end(tmp_path: Path) -> None:
    one = search(tmp_path, trials=2)
    first = next(one.todo())
    with first.held():  # by a process that has not heard yet that its sweep was killed
        source = search(tmp_path, trials=2).todo()
        second = next(source)
        assert second != first
    assert next(source) == first


def test_two_workers_share_one_search_and_never_one_job(tmp_path: Path) -> None:
    workers = [search(tmp_path), search(tmp_path)]
    sources = [one.todo() for one in workers]
    taken: list[Job] = []
    with_job: list[Job | None] = [None, None]
    holds = [None, None]
    for turn in range(40):
        i = turn % 2
        if with_job[i] is not None:
            finish(with_job[i])
            holds[i].__exit__(None, None, None)
            workers[i].heard(with_job[i])
        with_job[i] = next(sources[i], None)
        if with_job[i] is None:
            continue
        taken.append(with_job[i])
        holds[i] = with_job[i].held()
        holds[i].__enter__()
    assert sorted(job.number for job in taken) == list(range(8))
    states = [trial.state for trial in workers[0].study().trials]
    assert states == [optuna.trial.TrialState.COMPLETE] * 8


def test_a_failed_trial_is_not_told_and_is_tried_again(tmp_path: Path) -> None:
    one = search(tmp_path)
    job = next(one.todo())
    (job.directory / "error.txt").write_text("it failed")
    one.heard(job)
    assert not one.study().trials[0].state.is_finished()
    assert next(search(tmp_path).todo()) == job


def test_the_grid_has_every_combination_once(tmp_path: Path) -> None:
    space = {"method.temperature": {"low": 1, "high": 5, "step": 2}, "seed": {"choices": [0, 1]}}
    one = search(tmp_path, sampler="grid", space=space, trials=100)
    assert one.total == 6
    for job in one.todo():
        finish(job)
        one.heard(job)
    tried = sorted((t["method.temperature"], t["seed"]) for t in values(one))
    assert tried == [(t, s) for t in (1, 3, 5) for s in (0, 1)]


def test_the_best_is_the_best_on_val(tmp_path: Path) -> None:
    one = search(tmp_path)
    assert one.best() is None
    for job in one.todo():
        finish(job)
        one.heard(job)
    assert one.best().order.axes == one.study().best_params


@pytest.mark.parametrize(
    ("space", "kinds"),
    [
        ({"a": {"low": 1, "high": 5}}, "Int"),
        ({"a": {"low": 1, "high": 5.0}}, "Float"),
        ({"a": {"low": 1.0, "high": 5.0, "log": True}}, "Float"),
        ({"a": {"choices": ["x", None]}}, "Categorical"),
    ],
)
def test_a_space_in_words(space: dict, kinds: str) -> None:
    assert type(distributions_of(space)["a"]).__name__ == f"{kinds}Distribution"


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({}, "sweep.search.space must have a key or more"),
        ({"a": {"low": 1}}, "sweep.search.space.a must have choices, or low and high"),
        ({"a": {"low": 1, "hgih": 2}}, "unknown word 'hgih': did you mean high"),
        ({"a": {"low": 5, "high": 1}}, "sweep.search.space.a cannot be searched"),
        ({"a": {"choices": []}}, "sweep.search.space.a cannot be searched"),
    ],
)
def test_a_space_that_is_none_is_refused(space: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        distributions_of(space)


def test_a_grid_needs_an_end() -> None:
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
@pytest.mark.sweeps
def test_a_real_search_prunes_is_killed_goes_on_with_two_workers_and_ends_with_a_command(
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
    workers = [start(str(directory), "--resume", module="sweep") for _ in range(2)]
    printed = [worker.communicate(timeout=280)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    jobs = jobs_of(directory)
    states = [job.state() for job in jobs]
    assert len(jobs) == 10
    assert set(states) == {State.DONE, State.PRUNED}
    for job in jobs:  # a pruned one stopped at a rung, and all it has is of whole epochs
        if job.state() is State.PRUNED:
            rows = (job.directory / "epochs.csv").read_text().splitlines()
            about = json.loads((job.directory / "pruned.json").read_text())
            assert len(rows) - 1 == about["epoch"] < 9
            assert job.order.search["trial"] == job.number
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{directory}/search.db")
    assert len(study.trials) == 10
    told = [trial.state is optuna.trial.TrialState.COMPLETE for trial in study.trials]
    assert told == [state is State.DONE for state in states]
    assert study.best_value == max(
        job.metrics()["objective"] for job in jobs if job.state() is State.DONE
    )
    (best,) = [line for line in printed[0].splitlines() if line.startswith("Best on val: ")]
    asked = OmegaConf.load(directory / "sweep.yaml")
    for word in asked.overrides:
        assert word in best
    assert f"method.temperature={study.best_params['method.temperature']}" in best
    once = start(*best.removeprefix("Best on val: python -m kd_lightning.run ").split())
    said, _ = once.communicate(timeout=120)
    assert once.returncode == 0, said[-2000:]


@pytest.mark.slow
@pytest.mark.sweeps
def test_a_search_without_a_val_part_is_a_sentence(tmp_path: Path) -> None:
    sweep = start("-m", *TINY, "sweep=search", "sweep.search.trials=1", "data.val_fraction=0",
                  f"sweep.dir={tmp_path}/s", f"outputs={tmp_path}")  # fmt: skip
    printed, _ = sweep.communicate(timeout=200)
    assert sweep.returncode == 1
    assert "a search needs a val part to choose by (data.val_fraction=…)" in printed


@pytest.mark.slow
@pytest.mark.sweeps
def test_a_trial_on_two_ranks_of_torchrun_ends_with_both(tmp_path: Path) -> None:
    two = ["hardware=ddp", "hardware.devices=2", "hardware.accelerator=cpu"]
    words = [*TINY, *two, "sweep=search", "sweep.search.trials=1"]
    words += [f"sweep.dir={tmp_path}/s", f"outputs={tmp_path}"]
    words.remove("hardware=cpu")
    directory = create.make(words, None, Console(quiet=True))
    (job,) = engine.search_of(directory, engine.settings_in(directory)).todo()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         *job.command()[1:]],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert job.state() is State.DONE


def test_a_storage_by_a_relative_path_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["sweep=search", "sweep.search.storage=sqlite:///my.db", "data=synthetic"]
    directory = create.make([*words, "sweep.dir=s"], None, Console(quiet=True))
    asked = engine.settings_in(directory)
    assert asked["search"]["storage"] == f"sqlite:///{tmp_path}/my.db"
