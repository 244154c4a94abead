"""A single job in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from filelock import FileLock
from forked_runs import run_on_two_ranks
from helpers import TINY

from benchmarks.torture.forked import start_ranks, wait_for_all
from kd_lightning import work
from kd_lightning.base.allowed import ANYTHING
from kd_lightning.callbacks.pruning import Pruned
from kd_lightning.launchers.local import Local
from kd_lightning.records.jobs import JOB_VARIABLE, Job, JobSpec, State, create_job

pytestmark = pytest.mark.slow


@pytest.fixture
def make(tmp_path: Path, store: Path):
    """make("seed=1"): a job of a few seconds, with these overrides."""

    def make(*overrides: str, number: int = 0) -> Job:
        spec = JobSpec(
            number=number,
            variant="v",
            axes={},
            overrides=[*TINY, f"teacher.store={store}", *overrides],
            sweep="s",
            folder=str(tmp_path),
        )
        return create_job(tmp_path / "jobs" / f"{number:04d}", spec)

    return make


def start(job: Job) -> ForkServerProcess:
    """Starts the job, forked from a process that all tests here share."""
    return Local().start(job, [])


def run(job: Job) -> int:
    process = start(job)
    process.join()
    return process.exitcode


def until(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)


def test_a_job_leaves_a_run_a_log_and_its_progress(make, tmp_path: Path) -> None:
    job = make("outputs=relative")
    done = subprocess.run(job.command(), capture_output=True, text=True)
    assert done.returncode == 0
    assert job.state() is State.DONE
    assert done.stdout + done.stderr == ""  # everything is in the log
    assert "ensemble of the students" in job.log.read_text()
    assert job.progress()["phase"] == "done"
    assert not (tmp_path / "relative" / "sweeps").exists()
    before = (job.directory / "metrics.json").stat().st_mtime_ns
    assert run(job) == 0  # there is nothing left to do
    assert (job.directory / "metrics.json").stat().st_mtime_ns == before
    environment = json.loads((job.directory / "environment.json").read_text())
    assert environment["command"] == ["run.py", *job.spec.overrides]


def test_a_job_whose_record_is_damaged_is_run_again(make) -> None:
    job = make("outputs=relative", "trainer.max_epochs=1")
    good = (job.directory / "last.ckpt", job.directory / "config.yaml")
    assert run(job) == 0
    metrics = job.metrics()
    for path in (*good, job.directory / "metrics.json"):
        path.write_bytes(b"") if path.name != "metrics.json" else path.unlink()
    assert run(job) == 0
    assert "so the job begins again with its first epoch; set aside:" in job.log.read_text()
    assert job.metrics()["objective"] == metrics["objective"]
    assert {path.name for path in job.directory.glob("*.damaged")} == {
        "config.yaml.damaged",
        "last.ckpt.damaged",
    }


@dataclass(frozen=True)
class Loaded(Job):
    """A job that writes which modules its process has when it starts."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "loaded", str(self.directory / "modules.txt")]


def test_a_forked_job_finds_its_libraries_imported(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import sys\nopen(sys.argv[1], 'w').write('\\n'.join(sys.modules))\n"
    (tmp_path / "loaded.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    job = Loaded(make().directory)
    assert run(job) == 0
    modules = (job.directory / "modules.txt").read_text().split()
    assert {"torch", "lightning.pytorch", "kd_lightning.running.run"} <= {*modules}
    assert "kd_lightning.work" not in modules  # runpy warns of a module that it is to run again


def test_a_user_error_is_one_sentence_and_the_job_can_be_run_again(make) -> None:
    job = make("method.temperature=0")
    assert run(job) == 2
    assert job.state() is State.FAILED
    assert job.error() == "method.temperature must be > 0, got 0"
    assert "Traceback" not in job.log.read_text()
    assert run(job) == 2
    assert job.log.read_text().count("Error: method.temperature must be") == 2


BROKEN = """
from lightning.pytorch import Callback
class Broken(Callback):
    def on_train_start(self, *_):
        1 / 0
"""


def test_a_bug_keeps_its_traceback_in_the_log(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    job = replace(make("+callbacks.broken._target_=broken.Broken"), allow=("broken",))
    assert run(job) == 1
    assert job.error().endswith("ZeroDivisionError: division by zero")
    assert len(job.error().splitlines()) <= 6
    assert "Traceback" in job.log.read_text()


def test_a_killed_job_is_resumed_from_its_last_epoch(make) -> None:
    job = make("trainer.max_epochs=12", "data.num_train=480")
    process = start(job)
    until(lambda: (job.directory / "last.ckpt").exists())
    process.kill()
    process.join()
    assert job.state() is State.STOPPED
    assert run(job) == 0
    rows = (job.directory / "epochs.csv").read_text().splitlines()
    assert len(rows) == 13
    assert job.progress()["phase"] == "done"


def test_a_resumed_job_may_use_the_classes_that_it_names(make, monkeypatch) -> None:
    job = make("method.students.a._target_=own_nets.Net")
    (job.directory / "last.ckpt").touch()
    resumed = []
    monkeypatch.setattr(work, "run", lambda cfg, words: resumed.append(cfg))
    monkeypatch.chdir(job.directory)
    work.run_job(replace(job, allow=(ANYTHING,)))
    assert (resumed[0].resume, resumed[0].allow) == (str(job.directory), ["own_nets"])


def test_a_job_without_a_finished_epoch_starts_again(make) -> None:
    job = make()
    (job.directory / "config.yaml").write_text("of a run that was killed at once")
    (job.directory / "log.txt").write_text("what it printed\n")
    assert run(job) == 0
    assert job.log.read_text().startswith("what it printed\n")
    assert "of a run" not in (job.directory / "config.yaml").read_text()


def has_ended(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout[:1] in ("", "Z")


def test_a_second_process_waits_and_finds_the_job_done(make) -> None:
    job = make()
    with FileLock(job.directory / ".lock"):
        second = start(job)
        second.join(timeout=3)
        assert second.is_alive()
        assert job.progress() == {}
        (job.directory / "metrics.json").write_text("{}")
    second.join(timeout=60)
    assert second.exitcode == 0
    assert (job.directory / "metrics.json").read_text() == "{}"


def test_two_launches_of_a_job_with_two_ranks_run_it_once(make) -> None:
    job = make("hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2")
    run(make("method.temperature=0", number=1))  # from now on a fork takes no imports
    with FileLock(job.directory / ".lock"):  # as if another launch were running it
        waiting = job.directory.parent / "waiting"
        waiting.mkdir()
        ranks = start_ranks(waiting, str(job.directory), program="kd_lightning.work")
        assert wait([rank.sentinel for rank in ranks], 5) == []
        assert not (job.directory / "config.yaml").exists()
        (job.directory / "metrics.json").write_text("{}")
    assert wait_for_all(ranks, 60)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    (job.directory / "metrics.json").unlink()
    run_on_two_ranks(
        job.directory.parent / "ranks", str(job.directory), program="kd_lightning.work"
    )
    assert job.state() is State.DONE
    assert job.log.read_text().count("ensemble of the students") == 1


def test_a_job_ends_with_the_process_that_started_it(make, tmp_path: Path) -> None:
    job = make("trainer.max_epochs=5000")
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])",
         *job.command()],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    until(lambda: (job.directory / "last.ckpt").exists())
    assert job.state() is State.RUNNING
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: job.state() is State.STOPPED, 30)


def test_a_job_whose_sweep_is_killed_while_it_imports_ends_too(make) -> None:
    job = make("trainer.max_epochs=5000")
    program = (
        "import json, sys, time; from kd_lightning.launchers.process import start\n"
        "print(start(json.loads(sys.argv[1]), sys.argv[2]).pid, flush=True); time.sleep(600)"
    )
    sweep = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(job.command()), str(job.log)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    pid = int(sweep.stdout.readline())
    sweep.kill()
    sweep.communicate()
    assert job.progress() == {}  # it is still importing
    until(lambda: has_ended(pid), 60)
    assert not (job.directory / "metrics.json").exists()


def test_a_directory_that_is_not_a_job_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["work", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        work.main()
    assert ended.value.code == 2
    said = f"Error: {tmp_path} is not a job: expected job.json in it\n"
    assert capsys.readouterr().err == said


def test_the_help_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = work.build_parser().format_help().splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_another_rank_of_a_pruned_trial_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pruned(job: Job) -> None:
        raise Pruned(1, 0.5)

    job = create_job(tmp_path / "0000", JobSpec(0, "0", {}, ()))
    monkeypatch.setattr(work, "is_first_rank", lambda: False)
    monkeypatch.setattr(work, "wait_for_first", lambda job: True)
    monkeypatch.setattr(work, "run_job", pruned)
    monkeypatch.setenv(JOB_VARIABLE, "")
    assert work.work(job.directory) == 0
