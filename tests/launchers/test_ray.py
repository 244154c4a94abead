"""Ray as launcher, with real clusters of this machine; each driver is a process of its own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import TINY

from kd_lightning.base.errors import UserError
from kd_lightning.launchers import ray as launcher
from kd_lightning.launchers.ray import Ray
from kd_lightning.records.jobs import Order, State, create, jobs_of

# one after the other: address="auto" finds whatever Ray the machine has
pytestmark = pytest.mark.xdist_group("ray")

pytest.importorskip("ray")

# What every driver begins with; Bash is a job that runs a line of bash in its directory.
DRIVER = """
import os, sys, time
from dataclasses import dataclass
from pathlib import Path
import ray
from kd_lightning.records.jobs import Job, Order, create, jobs_of
from kd_lightning.launchers.ray import Ray

@dataclass(frozen=True)
class Bash(Job):
    line: str = "true"
    def command(self):
        return ["bash", "-c", f"cd {self.directory}; {self.line}"]

def bash(number, line):
    order = Order(number, f"{number}", {}, (), accelerator="cpu")
    return Bash(create(folder / "jobs" / f"{number:04}", order).directory, line)

folder = Path(sys.argv[1])
"""
OVER = "echo {} > metrics.json"


def drive(folder: Path, program: str, **more: str) -> subprocess.Popen:
    words = [sys.executable, "-c", DRIVER + textwrap.dedent(program), str(folder)]
    return subprocess.Popen(
        words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **more}
    )


def driven(folder: Path, program: str, **more: str) -> str:
    """What a driver prints."""
    out, error = drive(folder, program, **more).communicate()
    assert error == ""
    return out


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.sweeps
def test_every_job_comes_back_and_a_failed_one_or_a_dead_worker_stops_none(tmp_path: Path) -> None:
    program = f"""
        lines = ["{OVER}", "exit 3", "kill -9 $$", "kill -9 $PPID; sleep 60", "{OVER}"]
        jobs = [bash(number, line) for number, line in enumerate(lines)]
        asked, heard, ahead = [], [], []
        def source():
            for job in jobs:
                ahead.append(len(asked) - len(heard))
                asked.append(job)
                yield job
        for job in Ray(max_jobs=2).run(source()):
            heard.append(job)
        assert set(heard) == set(jobs)
        print(max(ahead), ray.is_initialized())
    """
    # it asks for no more than it may have at once, and ends the Ray that it began; of a worker's
    # death Ray itself has a word to say
    assert driven(tmp_path, program).splitlines()[-1] == "1 False"
    jobs = jobs_of(tmp_path)
    assert [job.is_over() for job in jobs] == [True, False, False, False, True]
    assert jobs[1].error() == "its process was ended with exit code 3"
    assert jobs[2].error().startswith("its process was ended by SIGKILL")
    assert jobs[3].error().startswith("Ray lost its worker: The worker died unexpectedly")


@pytest.mark.slow
@pytest.mark.sweeps
def test_in_a_cluster_that_was_there_jobs_get_what_they_asked_for(tmp_path: Path) -> None:
    line = "echo $OMP_NUM_THREADS,${CUDA_VISIBLE_DEVICES-none},${LOCAL_RANK-none} > said"
    program = f"""
        ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False,
                 logging_level="error", object_store_memory=100 * 2**20)
        for number, launcher in enumerate([Ray(num_cpus_per_job=3), Ray(num_gpus_per_job=1)]):
            job = bash(number, "{line}")
            print(launcher.room(job.order), list(launcher.run([job])) == [job])
        print(Ray(num_gpus_per_job=0.5).room(job.order), ray.is_initialized())
        try:
            list(Ray(num_gpus_per_job=3).run([job]))
        except ValueError as error:
            print(error)
    """
    *said, refused = driven(tmp_path, program, LOCAL_RANK="1").splitlines()
    assert said == ["1 True", "2 True", "4 True"]
    assert refused.startswith("a job needs 3 GPU, and the Ray cluster has 2 (launcher.num_gpus_")
    cpu, gpu = (job.directory.joinpath("said").read_text().strip() for job in jobs_of(tmp_path))
    assert cpu == "3,none,none"
    assert gpu.split(",")[1:] in (["0", "none"], ["1", "none"])


@pytest.mark.slow
@pytest.mark.sweeps
def test_an_interrupted_sweep_asks_its_jobs_to_end_and_waits(tmp_path: Path) -> None:
    line = "trap 'sleep 0.2; touch ended; exit 0' TERM; touch begun; while :; do sleep 0.02; done"
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
    driver = drive(tmp_path, program)
    wait_for(tmp_path / "jobs" / "0000" / "begun")
    driver.send_signal(signal.SIGTERM)
    assert driver.communicate() == (f"{signal.SIGTERM} True\n", "")


@pytest.mark.slow
@pytest.mark.sweeps
def test_real_jobs(tmp_path: Path) -> None:
    words = ["method=supervised", *(word for word in TINY if not word.startswith("teacher"))]
    for number, word in enumerate(["seed=0", "trainer.max_epochs=0", "seed=1"]):
        order = Order(number, word, {}, [*words, word], accelerator="cpu", threads=1)
        create(tmp_path / "jobs" / f"{number:04}", order)
    program = "print(sorted(job.number for job in Ray().run(jobs_of(folder))))"
    assert driven(tmp_path, program) == "[0, 1, 2]\n"  # and Ray not a word
    jobs = jobs_of(tmp_path)
    assert [job.state() for job in jobs] == [State.DONE, State.FAILED, State.DONE]
    assert "trainer.max_epochs must be >= 1" in jobs[1].error()


@pytest.mark.slow
@pytest.mark.sweeps
def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    program = """
        from ray._private.services import _find_address_from_flag
        while _find_address_from_flag("--gcs-address"):  # the last test's is still going down
            time.sleep(0.1)  # looked for by this, for find_gcs_addresses remembers what it found
        try:
            list(Ray(address="auto").run([bash(0, "true")]))
        except ValueError as error:
            print(error)
    """
    said = driven(tmp_path, program)
    assert said.startswith("Ray cannot be reached: Could not find any running Ray instance")
    assert said.endswith("(launcher.address=…)\n")


ORDER = Order(0, "a job", {}, ())


@pytest.mark.parametrize(
    ("order", "settings", "needs"),
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
def test_what_a_job_needs_follows_from_its_order(
    order: dict, settings: dict, needs: tuple[float, float]
) -> None:
    assert Ray(**settings).needs(replace(ORDER, **order), {"GPU": 4}) == needs


def test_the_best_device_of_a_cluster_without_gpus_is_a_core() -> None:
    assert Ray().needs(ORDER, {"CPU": 4}) == (1, 0)


def test_a_job_of_several_machines_is_refused() -> None:
    with pytest.raises(UserError, match=r"on one machine, got hardware.num_nodes=2"):
        Ray().needs(replace(ORDER, num_nodes=2), {})


@pytest.mark.parametrize(
    "setting", [{"num_cpus_per_job": -1}, {"num_gpus_per_job": -0.5}, {"max_jobs": 0}]
)
def test_odd_settings_name_their_key(setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"launcher\.{next(iter(setting))} must be >= "):
        Ray(**setting)


def test_without_jobs_no_ray_is_started() -> None:
    assert list(Ray(address="no.such.machine:1").run([])) == []


def test_without_ray_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"launcher=ray needs Ray: pip install kd_lightning\[ray"):
        Ray()


def test_a_job_that_could_say_why_it_failed_has_the_last_word(tmp_path: Path) -> None:
    import ray

    class Lost:
        def result(self) -> int:
            raise ray.exceptions.WorkerCrashedError

    job = create(tmp_path / "0000", ORDER)
    launcher.told(job, Lost())
    assert job.error().startswith("Ray lost its worker")
    (job.directory / "error.txt").write_text("mine")
    launcher.told(job, Lost())
    assert job.error() == "mine"
