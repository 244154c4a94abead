"""Sweeps with real processes. After any kill and resume, the results are those of an undisturbed
sweep.

What is killed is a process of its own. All other sweeps run in the process of the tests; their jobs
are processes as always.
"""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from helpers import TINY
from omegaconf import OmegaConf
from rich.console import Console

from kd_lightning import run, sweep
from kd_lightning.records.jobs import Job, State, jobs_of

pytestmark = pytest.mark.slow

SETTING = [*TINY, "data.num_train=480", "trainer.max_epochs=6", "method.temperature=1,8"]
VARYING = ("throughput",)  # all other numbers are the same bit for bit


def start(*words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "kd_lightning.run", "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


def resume(directory: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "kd_lightning.sweep", str(directory), "--resume", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


def printed_by(main: Callable[[], None], *words: str, code: int = 0) -> str:
    """What a command prints that runs in this process, and ends with this exit code."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "console", Console(file=said, width=200))
        patch.setattr(sys, "argv", ["command", *words])
        ended = 0
        try:
            main()
        except SystemExit as end:
            ended = end.code
    assert ended == code, said.getvalue()[-3000:]
    return said.getvalue()


def here(*words: str, code: int = 0) -> str:
    """``python -m kd_lightning.run -m``, see ``printed_by``."""
    return printed_by(run.main, "-m", *words, code=code)


def command(*words: str, code: int = 0) -> str:
    """``python -m kd_lightning.sweep``, see ``printed_by``."""
    return printed_by(sweep.main, *words, code=code)


def finish(process: subprocess.Popen, code: int = 0) -> str:
    printed, _ = process.communicate(timeout=280)
    assert process.returncode == code, printed[-3000:]
    return printed


def until(condition, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)


def has_job(directory: Path, state: State) -> bool:
    return state in states(directory)


def results(directory: Path) -> list[dict]:
    """The metrics of the jobs, without those that differ between any two runs."""

    def stripped(value):
        if isinstance(value, dict):
            return {k: stripped(v) for k, v in value.items() if k not in (*VARYING, "origin")}
        return value

    return [stripped(job.metrics()) for job in jobs_of(directory)]


def tables(directory: Path) -> list[str]:
    """The tables, without the lines that differ between any two runs, or name the commit."""
    texts = [(directory / name).read_text() for name in ("table.md", "table.csv", "table.tex")]
    return [
        "\n".join(
            line
            for line in text.splitlines()
            if not any(word in line for word in (*VARYING, "Made by "))
        )
        for text in texts
    ]


def states(directory: Path) -> list[State]:
    return [job.state() for job in jobs_of(directory)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four jobs that is not disturbed."""
    directory = tmp_path_factory.mktemp("undisturbed") / "sweep"
    words = [*SETTING, "seed=0,1", f"outputs={directory.parent}", f"sweep.dir={directory}"]
    printed = here(*words)
    (directory / "printed.txt").write_text(printed)
    return directory


def test_a_sweep_says_how_many_jobs_there_are_and_how_long_the_rest_will_take(
    undisturbed: Path,
) -> None:
    lines = (undisturbed / "printed.txt").read_text().splitlines()
    assert lines[0] == "4 jobs (2 variants x 2): checking the configuration"
    assert lines[1].startswith("4 jobs to run: ")
    assert any(re.search(r"[12] of 4 done.*; about \d+ (s|min) left", line) for line in lines)
    assert any("job 3 (method.temperature=8 seed=1): done, in" in line for line in lines)


def test_seeds_share_the_split_and_one_teacher_that_was_trained_once(undisturbed: Path) -> None:
    assert states(undisturbed) == [State.DONE] * 4
    assert len(list((undisturbed.parent / "teachers").glob("*/metrics.json"))) == 1
    environments = [
        json.loads((job.directory / "environment.json").read_text()) for job in jobs_of(undisturbed)
    ]
    assert len({each["teacher"]["fingerprint"] for each in environments}) == 1
    assert len({each["data"]["fingerprint"] for each in environments}) == 1
    logs = [job.log.read_text() for job in jobs_of(undisturbed)]
    assert sum("trained now" in log for log in logs) == 1
    # all others name the teacher that they reuse; the second has waited for the first
    assert sum(": reused from " in log for log in logs) == 3


def test_a_sweep_ends_with_its_tables(undisturbed: Path) -> None:
    markdown, csv, latex = tables(undisturbed)
    for text in (markdown, csv, latex):
        assert "temperature=8" in text.replace("\\_", "_")
    assert "±" in markdown
    settings = OmegaConf.load(undisturbed / "sweep.yaml")
    assert settings.title == "temperature"
    assert settings.command[0] == "-m"


def test_a_sweep_killed_at_any_moment_ends_like_an_undisturbed_one(
    tmp_path: Path, undisturbed: Path
) -> None:
    directory = tmp_path / "sweep"
    words = [*SETTING, "seed=0,1", f"outputs={tmp_path}", f"sweep.dir={directory}"]
    moment = random.Random(0)  # benchmarks/torture.py tries many
    killed = start(*words)
    # once while the teacher is trained or soon after, once when a job is done
    for state in (State.RUNNING, State.DONE):
        until(partial(has_job, directory, state))
        time.sleep(moment.uniform(0, 1))
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        if state is State.RUNNING:
            killed = resume(directory)
    command(str(directory), "--resume")
    assert results(directory) == results(undisturbed)
    assert tables(directory) == tables(undisturbed)


def test_a_job_that_is_killed_leaves_the_others_alone(tmp_path: Path, undisturbed: Path) -> None:
    directory = tmp_path / "sweep"
    victim = directory / "jobs" / "0001"
    words = [*SETTING[:-1], "method.temperature=1,4,8", "trainer.max_epochs=12"]
    words += [f"sweep.dir={directory}", f"outputs={undisturbed.parent}", "launcher.workers=2"]

    def kill() -> None:
        until(lambda: (victim / "last.ckpt").exists())
        os.kill(int(holder_of(victim)), signal.SIGKILL)

    with ThreadPoolExecutor(1) as other:
        killed = other.submit(kill)
        printed = here(*words, code=1)
        killed.result()
    assert states(directory) == [State.DONE, State.FAILED, State.DONE]
    reason = "its process was ended by SIGKILL: somebody killed it, or the memory was full"
    assert Job(directory / "jobs" / "0001").error() == reason
    assert reason in printed
    assert "1 of 3 jobs failed" in printed
    assert "2 of 3 done, 1 failed" in printed
    assert reason in (directory / "table.md").read_text()  # named, not averaged over
    before = [job.directory / "metrics.json" for job in jobs_of(directory)]
    stamps = {path: path.stat().st_mtime_ns for path in before if path.exists()}
    printed = command(str(directory), "--resume")
    assert "1 job to run, 2 already finished" in printed
    assert states(directory) == [State.DONE] * 3
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert "SIGKILL" not in (directory / "table.md").read_text()


def holder_of(directory: Path) -> str:
    """The process that holds a job's lock; a forked process has no command line of its own."""
    lock = os.stat(directory / ".lock")
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[5].endswith(f":{lock.st_ino}"):
            return words[4]
    raise AssertionError("no process holds the lock")


def test_jobs_of_two_devices_and_of_one_in_one_sweep(tmp_path: Path) -> None:
    directory = tmp_path / "sweep"
    words = [*TINY, "hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2,1"]
    words.remove("hardware=cpu")
    printed = here(*words, f"outputs={tmp_path}", f"sweep.dir={directory}")
    assert states(directory) == [State.DONE] * 2, printed
    # one sweep, one directory for each job, one table in each log: no rank has started its own
    assert not (tmp_path / "sweeps").exists()
    assert not list(tmp_path.glob("2*"))
    for job in jobs_of(directory):
        assert job.log.read_text().count("ensemble of the students") == 1
    two_devices, one_device = (
        OmegaConf.load(job.directory / "config.yaml") for job in jobs_of(directory)
    )
    assert (two_devices.hardware.devices, one_device.hardware.devices) == (2, 1)


def test_a_job_that_is_not_forked_has_the_same_results(tmp_path: Path, undisturbed: Path) -> None:
    directory = tmp_path / "sweep"
    words = [*SETTING[:-1], "method.temperature=1", "seed=0", f"outputs={undisturbed.parent}"]
    here(*words, f"sweep.dir={directory}", "launcher.warm=false")
    assert results(directory) == results(undisturbed)[:1]


def test_ctrl_c_stops_the_jobs_and_prints_the_command_that_resumes(tmp_path: Path) -> None:
    directory = tmp_path / "sweep"
    words = [*SETTING, "trainer.max_epochs=3000", f"outputs={tmp_path}", f"sweep.dir={directory}"]
    interrupted = start(*words)
    until(lambda: (directory / "jobs" / "0000" / "last.ckpt").exists())
    interrupted.send_signal(signal.SIGINT)
    printed = finish(interrupted, code=130)
    assert f"resume with: python -m kd_lightning.sweep {directory} --resume" in printed
    assert State.STOPPED in states(directory)
    assert set(states(directory)) <= {State.STOPPED, State.WAITING}
    assert not any(job.error() for job in jobs_of(directory))


def test_a_sweep_is_shown_and_anything_else_is_refused(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    printed = command(str(undisturbed))
    assert "4 of 4 done" in printed
    assert printed.count("method.temperature=") == 4
    for words, said in (
        ([str(tmp_path), "--resume"], f"{tmp_path} is not a sweep: expected sweep.yaml and jobs/"),
        ([str(undisturbed), "--resume", "seed=3"], "'seed=3' cannot be changed when a sweep is"),
    ):
        command(*words, code=2)
        assert capsys.readouterr().err.startswith(f"Error: {said}")


def test_a_user_error_is_one_sentence_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    here("method.temprature=1,2", f"outputs={tmp_path}/o", code=2)
    printed = capsys.readouterr().err
    (last,) = [line for line in printed.splitlines() if line.startswith("Error: ")]
    assert "did you mean method.temperature" in last
    assert "Traceback" not in printed
    assert not (tmp_path / "o").exists()
