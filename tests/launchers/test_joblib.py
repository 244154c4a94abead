"""The joblib launcher, with real processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from helpers import TINY

from kd_lightning.base.errors import UserError
from kd_lightning.launchers.joblib import Joblib
from kd_lightning.records.jobs import Job, JobSpec, State, create_job

SUPERVISED = ["method=supervised", *(word for word in TINY if not word.startswith("teacher"))]


@dataclass(frozen=True)
class Bash(Job):
    """A job that runs a line of bash in its directory."""

    line: str = "true"

    def command(self) -> list[str]:
        return ["bash", "-c", f"cd {self.directory}; {self.line}"]


def bash(folder: Path, line: str, number: int = 0) -> Bash:
    made = create_job(folder / f"{number:04}", JobSpec(number, f"{number}", {}, ()))
    return Bash(made.directory, line=line)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_job_is_yielded_and_a_failed_one_stops_no_other(tmp_path: Path) -> None:
    lines = ["echo done > metrics.json", "exit 3", "kill -9 $$", "echo mine > error.txt; exit 1"]
    jobs = [bash(tmp_path, line, number) for number, line in enumerate([*lines, lines[0]])]
    assert set(Joblib(n_jobs=2).run(jobs)) == set(jobs)
    assert [job.is_over() for job in jobs] == [True, False, False, False, True]
    assert [job.error() for job in jobs] == [
        None,
        "its process was ended with exit code 3",
        "its process was ended by SIGKILL: somebody killed it, or the memory was full",
        "mine",
        None,
    ]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_job_is_taken_only_when_a_slot_is_free_and_the_ended_job_was_yielded(
    slots: int, tmp_path: Path
) -> None:
    taken, ended, in_advance = [], [], []

    def source() -> Iterator[Job]:
        for number in range(7):
            in_advance.append(len(taken) - len(ended))
            taken.append(number)
            yield bash(tmp_path, "sleep 0.05", number)

    for job in Joblib(n_jobs=slots).run(source()):
        ended.append(job.number)
    assert sorted(ended) == list(range(7))
    assert max(in_advance) == slots - 1


def test_as_many_jobs_run_at_once_as_there_are_slots(tmp_path: Path) -> None:
    meet = "touch here; while [ ! -e ../000{}/here ]; do sleep 0.02; done; touch metrics.json"
    jobs = [bash(tmp_path, meet.format(1 - number), number) for number in range(2)]
    assert all(job.is_over() for job in Joblib(n_jobs=2).run(jobs))


@pytest.mark.parametrize("slots", [1, 2])
def test_the_cores_are_divided_between_jobs_unless_the_user_has_set_threads(
    slots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    for threads, expected in ((None, str(2 // slots)), ("7", "7")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if threads:
            monkeypatch.setenv("OMP_NUM_THREADS", threads)
        job = bash(tmp_path, "echo $OMP_NUM_THREADS > threads")
        list(Joblib(n_jobs=slots).run([job]))
        assert (job.directory / "threads").read_text().strip() == expected


def test_slots_are_counted_by_joblib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    assert [Joblib(n_jobs=n).slots for n in (-1, -2, 1, 5)] == [2, 1, 1, 5]
    with pytest.raises(UserError, match=r"launcher.n_jobs must be >= 1, or -1"):
        Joblib(n_jobs=0)


def test_a_job_does_not_inherit_the_rank_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    job = bash(tmp_path, "echo rank ${LOCAL_RANK:-none}")
    list(Joblib(n_jobs=1).run([job]))
    assert job.log.read_text() == "rank none\n"


def test_a_sweep_that_ends_stops_its_jobs_and_waits(tmp_path: Path) -> None:
    line = "trap 'sleep 0.2; touch ended; exit 0' TERM; touch {}; while :; do sleep 0.02; done"
    jobs = [bash(tmp_path, line.format("started"), number) for number in range(2)]
    jobs += [bash(tmp_path, "true", 2)]
    running = Joblib(n_jobs=3).run(jobs)
    assert next(running) == jobs[2]
    for job in jobs[:2]:
        wait_for(job.directory / "started")
    running.close()
    assert all((job.directory / "ended").exists() for job in jobs[:2])


def test_a_job_that_cannot_be_started_raises(tmp_path: Path) -> None:
    class Impossible(Job):
        def command(self) -> list[str]:
            return ["/no/such/program"]

    job = Impossible(bash(tmp_path, "true").directory)
    with pytest.raises(FileNotFoundError):
        list(Joblib(n_jobs=1).run([job]))


def test_jobs_that_would_share_one_gpu_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kd_lightning.launchers.joblib.visible_gpus", lambda: ["0", "1"])
    with pytest.raises(UserError, match=r"all would use the first one: choose launcher=local"):
        list(Joblib(n_jobs=2).run([bash(tmp_path, "true")]))
    job = bash(tmp_path, "true", 1)
    on_cpu = replace(job.spec, accelerator="cpu")
    create_job(job.directory, on_cpu)
    assert list(Joblib(n_jobs=2).run([job])) == [job]


def test_without_joblib_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(UserError, match=r"pip install kd_lightning\[joblib\]"):
        Joblib()


@pytest.mark.slow
def test_a_real_job(tmp_path: Path) -> None:
    job = create_job(tmp_path / "0000", JobSpec(0, "seed=0", {}, [*SUPERVISED, "seed=0"]))
    assert list(Joblib(n_jobs=2).run([job])) == [job]
    assert job.state() is State.DONE
    assert job.metrics()["objective"] is not None


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_job_running(tmp_path: Path) -> None:
    words = [*SUPERVISED, "trainer.max_epochs=100000"]
    job = create_job(tmp_path / "0000", JobSpec(0, "long", {}, words))
    program = (
        "import sys; from pathlib import Path; from kd_lightning.records.jobs import Job\n"
        "from kd_lightning.launchers.joblib import Joblib\n"
        "list(Joblib(n_jobs=1).run([Job(Path(sys.argv[1]))]))"
    )
    sweep = subprocess.Popen([sys.executable, "-c", program, job.directory])
    wait_for(job.directory / "last.ckpt")
    assert job.state() is State.RUNNING
    sweep.kill()
    sweep.wait()
    deadline = time.monotonic() + 60
    while job.is_locked():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert job.state() is State.STOPPED
