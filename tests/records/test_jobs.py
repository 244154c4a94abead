"""A job's state follows from its files, whatever process was killed and whenever."""

import fcntl
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.records import jobs
from kd_lightning.records.jobs import Job, JobSpec, State, create_job, jobs_of


@pytest.fixture
def spec() -> JobSpec:
    return JobSpec(number=3, variant="v", axes={"seed": 0}, overrides=["seed=0"], sweep="s")


@pytest.fixture
def job(tmp_path: Path, spec: JobSpec) -> Job:
    return create_job(tmp_path / "jobs" / "0003", spec)


HOLD = """
import sys
from pathlib import Path
from kd_lightning.base.errors import UserError
from kd_lightning.records.jobs import Job
with Job(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(job: Job):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(job.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_job_is_read_as_it_was_written(job: Job, spec: JobSpec) -> None:
    assert job.spec == spec
    assert job.number == 3


def test_a_job_is_waiting_until_its_first_report(job: Job) -> None:
    assert job.state() is State.WAITING
    job.report(phase="teacher")
    assert job.state() is State.STOPPED


def test_a_job_is_running_as_long_as_a_process_holds_it(job: Job, holder: subprocess.Popen) -> None:
    job.report(phase="teacher")
    assert job.state() is State.RUNNING
    holder.kill()  # a dead process holds nothing
    holder.wait()
    assert job.state() is State.STOPPED


@pytest.mark.parametrize(
    ("files", "state"),
    [
        (["error.txt"], State.FAILED),
        (["metrics.json"], State.DONE),
        (["pruned.json"], State.PRUNED),
        (["error.txt", "metrics.json"], State.DONE),
    ],
)
def test_the_state_follows_from_the_files(job: Job, files: list[str], state: State) -> None:
    job.report(phase="teacher")
    for name in files:
        (job.directory / name).write_text("{}")
    assert job.state() is state
    assert job.is_over() == (state is not State.FAILED)


def test_a_report_keeps_the_start_of_the_job(job: Job) -> None:
    job.report(phase="starting", begun=5.0)
    job.report(phase="teacher", epoch=1)
    progress = job.progress()
    assert (progress["phase"], progress["epoch"], progress["begun"]) == ("teacher", 1, 5.0)
    job.report(phase="done")
    assert "epoch" not in job.progress()


def test_a_report_that_cannot_be_written_raises_nothing(spec: JobSpec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    Job(tmp_path / "file" / "0000").report(phase="teacher")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGKILL, "ended by SIGKILL: somebody killed it, or the memory was full"),
        (128 + signal.SIGTERM, "ended by SIGTERM"),
        (3, "ended with exit code 3"),
    ],
)
def test_an_end_without_an_error_message_gets_one(job: Job, code: int, words: str) -> None:
    job.record_exit(code)
    assert job.error() == f"its process was {words}"
    assert job.state() is State.FAILED


def test_a_jobs_own_error_message_is_not_overwritten(job: Job) -> None:
    (job.directory / "error.txt").write_text("the disk is full")
    job.record_exit(1)
    assert job.error() == "the disk is full"


@pytest.mark.parametrize("code", [0, None])
def test_a_successful_end_leaves_no_error(job: Job, code: int | None) -> None:
    job.record_exit(code)
    assert job.error() is None


def test_jobs_are_sorted_by_number_and_incomplete_ones_are_left_out(
    tmp_path: Path, spec: JobSpec
) -> None:
    for number in (2, 0, 10):
        create_job(tmp_path / "jobs" / f"{number:04d}", spec)
    (tmp_path / "jobs" / "0001").mkdir()
    assert [job.number for job in jobs_of(tmp_path)] == [0, 2, 10]


def test_a_process_finds_its_job_by_an_environment_variable(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(jobs.JOB_VARIABLE, raising=False)
    assert jobs.current_job() is None
    monkeypatch.setenv(jobs.JOB_VARIABLE, str(job.directory))
    assert jobs.current_job() == job


def test_reading_the_state_makes_no_lock_file(job: Job) -> None:
    (job.directory / "metrics.json").write_text(json.dumps({"objective": 1.0}))
    assert not (job.directory / ".lock").exists()
    assert job.state() is State.DONE
    assert not (job.directory / ".lock").exists()
    assert job.metrics() == {"objective": 1.0}


def test_files_that_a_power_failure_cut_off(job: Job) -> None:
    (job.directory / "progress.json").write_text("")
    assert job.progress() == {}
    job.report(phase="teacher")
    assert job.progress()["phase"] == "teacher"
    (job.directory / "job.json").write_text('{"number": 3')
    with pytest.raises(UserError, match=r"job\.json is not what was written"):
        _ = job.spec


def test_two_checks_at_once_do_not_disturb_each_other(job: Job) -> None:
    path = job.directory / ".lock"
    path.touch()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # another process checks the lock
        assert not job.is_locked()
    with job.locked():
        assert job.is_locked()
