"""The Ray launcher, with real clusters on this machine; each driver is a separate process."""

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from helpers import TINY

from kd_lightning.base.errors import UserError
from kd_lightning.launchers import ray as launcher
from kd_lightning.launchers.process import start
from kd_lightning.launchers.ray import Ray
from kd_lightning.records.jobs import JobSpec, State, create_job, jobs_of

pytest.importorskip("ray")

# The start of every driver. Bash is a job that runs a line of bash in its directory.
DRIVER = """
import os, sys, time
from dataclasses import dataclass
from pathlib import Path
import ray
from kd_lightning.records.jobs import Job, JobSpec, create_job, jobs_of
from kd_lightning.launchers.ray import Ray

@dataclass(frozen=True)
class Bash(Job):
    line: str = "true"
    def command(self):
        return ["bash", "-c", f"cd {self.directory}; {self.line}"]

def bash(number, line):
    spec = JobSpec(number, f"{number}", {}, (), accelerator="cpu")
    return Bash(create_job(folder / "jobs" / f"{number:04}", spec).directory, line)

folder = Path(sys.argv[1])
"""
OVER = "echo {} > metrics.json"


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One test after the other, also in pytest's other processes: address="auto" finds any Ray on
    this machine.
    """
    with (tmp_path_factory.getbasetemp().parent / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start_driver(folder: Path, program: str, **environment: str) -> subprocess.Popen:
    words = [sys.executable, "-c", DRIVER + textwrap.dedent(program), str(folder)]
    return subprocess.Popen(
        words,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


def run_driver(folder: Path, program: str, **environment: str) -> str:
    """Runs a driver and returns what it prints."""
    out, error = start_driver(folder, program, **environment).communicate()
    assert error == ""
    return out


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_every_job_is_yielded_and_a_failure_stops_no_other_job(tmp_path: Path) -> None:
    program = f"""
        lines = ["{OVER}", "exit 3", "kill -9 $$", "kill -9 $PPID; sleep 60", "{OVER}"]
        jobs = [bash(number, line) for number, line in enumerate(lines)]
        taken, ended, in_advance = [], [], []
        def source():
            for job in jobs:
                in_advance.append(len(taken) - len(ended))
                taken.append(job)
                yield job
        for job in Ray(max_jobs=2).run(source()):
            ended.append(job)
        assert set(ended) == set(jobs)
        print(max(in_advance), ray.is_initialized())
    """
    # no job is taken too early, and the Ray that was started is ended; only the last line counts,
    # as Ray itself prints a message about the dead worker
    assert run_driver(tmp_path, program).splitlines()[-1] == "1 False"
    jobs = jobs_of(tmp_path)
    assert [job.is_over() for job in jobs] == [True, False, False, False, True]
    assert jobs[1].error() == "its process was ended with exit code 3"
    assert jobs[2].error().startswith("its process was ended by SIGKILL")
    assert jobs[3].error().startswith("Ray lost its worker: The worker died unexpectedly")


@pytest.mark.slow
def test_in_an_existing_cluster_jobs_get_what_they_request(tmp_path: Path) -> None:
    line = "echo $OMP_NUM_THREADS,${CUDA_VISIBLE_DEVICES-none},${LOCAL_RANK-none} > output"
    program = f"""
        ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False,
                 logging_level="error", object_store_memory=100 * 2**20)
        for number, launcher in enumerate([Ray(num_cpus_per_job=3), Ray(num_gpus_per_job=1)]):
            job = bash(number, "{line}")
            print(launcher.capacity(job.spec), list(launcher.run([job])) == [job])
        print(Ray(num_gpus_per_job=0.5).capacity(job.spec), ray.is_initialized())
        try:
            list(Ray(num_gpus_per_job=3).run([job]))
        except ValueError as error:
            print(error)
    """
    *lines, refused = run_driver(tmp_path, program, LOCAL_RANK="1").splitlines()
    assert lines == ["1 True", "2 True", "4 True"]
    assert refused.startswith("a job needs 3 GPU, and the Ray cluster has 2 (launcher.num_gpus_")
    cpu, gpu = (job.directory.joinpath("output").read_text().strip() for job in jobs_of(tmp_path))
    assert cpu == "3,none,none"
    assert gpu.split(",")[1:] in (["0", "none"], ["1", "none"])


@pytest.mark.slow
def test_an_interrupted_sweep_stops_its_jobs_and_waits(tmp_path: Path) -> None:
    line = "trap 'sleep 0.2; touch ended; exit 0' TERM; touch started; while :; do sleep 0.02; done"
    program = f"""
        from kd_lightning.base.interrupts import Interrupted, interruptible
        from contextlib import closing
        job = bash(0, {line!r})
        try:
            with interruptible(), closing(Ray().run([job])) as ended:
                list(ended)
        except Interrupted as interrupted:
            print(interrupted.signum, (job.directory / "ended").exists())
    """
    driver = start_driver(tmp_path, program)
    wait_for(tmp_path / "jobs" / "0000" / "started")
    driver.send_signal(signal.SIGTERM)
    assert driver.communicate() == (f"{signal.SIGTERM} True\n", "")


@pytest.mark.slow
def test_a_real_job(tmp_path: Path) -> None:
    words = ["method=supervised", *(word for word in TINY if not word.startswith("teacher"))]
    spec = JobSpec(0, "seed=0", {}, [*words, "seed=0"], accelerator="cpu", threads=1)
    job = create_job(tmp_path / "jobs" / "0000", spec)
    program = "print([job.number for job in Ray().run(jobs_of(folder))])"
    assert run_driver(tmp_path, program) == "[0]\n"  # and Ray prints nothing
    assert job.state() is State.DONE


@pytest.mark.slow
def test_a_missing_cluster_is_one_sentence(tmp_path: Path) -> None:
    program = """
        from ray._private.services import _find_address_from_flag
        # Ray of the previous test may still be ending; find_gcs_addresses would cache its address
        while _find_address_from_flag("--gcs-address"):
            time.sleep(0.1)
        try:
            list(Ray(address="auto").run([bash(0, "true")]))
        except ValueError as error:
            print(error)
    """
    message = run_driver(tmp_path, program)
    assert message.startswith("Ray cannot be reached: Could not find any running Ray instance")
    assert message.endswith("(launcher.address=…)\n")


SPEC = JobSpec(0, "a job", {}, ())


@pytest.mark.parametrize(
    ("spec", "settings", "needs"),
    [
        ({"accelerator": "cpu", "threads": 2, "devices": 3}, {}, (6, 0)),
        ({"accelerator": "cpu", "threads": 2}, {"num_cpus_per_job": 0.5}, (0.5, 0)),
        ({"accelerator": "gpu", "devices": 2}, {}, (2, 2)),
        ({"accelerator": "cuda"}, {"num_gpus_per_job": 0.25}, (1, 0.25)),
        ({"accelerator": "cpu"}, {"num_gpus_per_job": 1}, (1, 1)),
        ({"accelerator": "cpu"}, {}, (1, 0)),
        ({"accelerator": "auto", "devices": 2}, {}, (2, 2)),
    ],
)
def test_the_reserved_resources_follow_from_the_order(
    spec: dict, settings: dict, needs: tuple[float, float]
) -> None:
    assert Ray(**settings).needs(replace(SPEC, **spec), {"GPU": 4}) == needs


def test_in_a_cluster_without_gpus_auto_is_a_core() -> None:
    assert Ray().needs(SPEC, {"CPU": 4}) == (1, 0)


def test_a_job_on_several_machines_is_refused() -> None:
    with pytest.raises(UserError, match=r"on one machine, got hardware.num_nodes=2"):
        Ray().needs(replace(SPEC, num_nodes=2), {})


@pytest.mark.parametrize(
    "setting", [{"num_cpus_per_job": -1}, {"num_gpus_per_job": -0.5}, {"max_jobs": 0}]
)
def test_invalid_settings_are_refused_with_their_key(setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"launcher\.{next(iter(setting))} must be >= "):
        Ray(**setting)


def test_more_than_one_device_must_be_whole_ones() -> None:
    with pytest.raises(UserError, match=r"num_gpus_per_job must be a whole number, or at most 1"):
        Ray(num_gpus_per_job=1.5)
    Ray(num_gpus_per_job=2.0, num_cpus_per_job=1.5)


def test_without_jobs_no_ray_is_started() -> None:
    assert list(Ray(address="no.such.machine:1").run([])) == []


def test_without_ray_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"launcher=ray needs Ray: pip install kd_lightning\[ray"):
        Ray()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_starts_while_ray_cancels_it_is_ended(
    signum: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = list[subprocess.Popen]()

    def start_and_cancel(*arguments: object) -> subprocess.Popen:
        processes.append(start(*arguments))
        signal.raise_signal(signum)
        return processes[0]

    def handler(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, "start", start_and_cancel)
    with launcher.keep_signal_handlers():
        signal.signal(signum, handler)  # as Ray's own
        with pytest.raises(KeyboardInterrupt):
            launcher.work(["sleep", "60"], str(tmp_path / "log"), "1")
    assert processes[0].returncode == -signal.SIGTERM


def test_the_error_of_a_job_itself_is_not_replaced(tmp_path: Path) -> None:
    import ray

    class Lost:
        def result(self) -> int:
            raise ray.exceptions.WorkerCrashedError

    job = create_job(tmp_path / "0000", SPEC)
    launcher.explain_end(job, Lost())
    assert job.error().startswith("Ray lost its worker")
    (job.directory / "error.txt").write_text("mine")
    launcher.explain_end(job, Lost())
    assert job.error() == "mine"
