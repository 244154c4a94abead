"""The SLURM launcher, with a real SLURM on this machine."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from kd_lightning import distill
from kd_lightning.base.errors import UserError
from kd_lightning.launchers import slurm
from kd_lightning.launchers.slurm import Slurm, outside_any_job
from kd_lightning.launchers.slurm_queue import Entry
from kd_lightning.records.jobs import Job, JobSpec, State, create_job

pytest.importorskip("submitit")


def real(test: Callable) -> Callable:
    """Marks a test that needs the real SLURM."""
    return pytest.mark.slow(pytest.mark.usefixtures("slurm")(test))


@dataclass(frozen=True)
class Bash(Job):
    """A job that runs a line of bash in its directory."""

    line: str = "true"

    def command(self) -> list[str]:
        return ["bash", "-c", f"cd {self.directory}; {self.line}"]


def bash(folder: Path, line: str, number: int = 0, **spec) -> Bash:
    spec = JobSpec(number, f"variant {number}", {}, (), sweep=f"sweep of {folder.name}", **spec)
    return Bash(create_job(folder / f"{number:04}", spec).directory, line)


def launcher(**arguments) -> Slurm:
    return Slurm(**{"timeout_min": 5, "poll_seconds": 0.5} | arguments)


def squeue(job: Job, form: str) -> list[str]:
    """One line of output for each job of the sweep to which ``job`` belongs."""
    command = ["squeue", "--noheader", "--states=all", f"--format={form}"]
    command.append(f"--name={job.spec.sweep}")
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@real
def test_a_job_has_a_task_for_each_device_with_the_requested_resources(tmp_path: Path) -> None:
    names = ("NTASKS", "NNODES", "LOCALID", "NODEID", "NTASKS_PER_NODE", "CPUS_PER_TASK")
    values = ",".join(f"$SLURM_{name}" for name in names)
    job = bash(tmp_path, f"echo {values},$GREETING > output-$SLURM_PROCID", 7,
               devices=2, num_nodes=2, threads=2)  # fmt: skip
    # srun must not depend on the number of cores that sbatch sets
    setup = ["unset SLURM_CPUS_PER_TASK", "export GREETING=hello"]
    slurm = launcher(setup=setup, mem_gb=0.5, parameters={"nice": 3})
    assert list(slurm.run([job])) == [job]
    tasks = [(job.directory / f"output-{rank}").read_text().strip() for rank in range(4)]
    assert tasks == [f"4,2,{rank % 2},{rank // 2},2,2,hello" for rank in range(4)]
    (entry,) = (line.split("|") for line in squeue(job, "%j|%k|%C|%m|%l|%y|%T"))
    assert entry == [job.spec.sweep, "7: variant 7", "8", "512M", "5:00", "3", "COMPLETED"]
    assert job.error() is None


@real
@pytest.mark.parametrize(
    ("accelerator", "setting", "expected"),
    [
        ("gpu", None, 2),
        ("cuda", None, 2),
        ("cpu", None, None),
        ("auto", None, None),
        ("auto", 4, 4),
    ],
)
def test_gpus_are_requested_if_the_devices_are_gpus(
    accelerator: str, setting: int | None, expected: int | None
) -> None:
    spec = JobSpec(0, "", {}, (), "a sweep", devices=2, accelerator=accelerator)
    assert launcher(gpus_per_node=setting).request(spec).get("gpus_per_node") == expected


@real
def test_a_job_is_taken_when_it_can_be_queued_and_a_failure_stops_no_other(tmp_path: Path) -> None:
    lines = ("exit 3", "scancel $SLURM_JOB_ID; sleep 60", "true", "echo no > error.txt; false")
    taken = []

    def jobs() -> Iterator[Job]:
        for number, line in enumerate(lines):
            taken.append(number)
            yield bash(tmp_path, line, number)

    ended = []
    for job in launcher(max_jobs=2).run(jobs()):
        ended.append(job)
        assert len(taken) <= len(ended) + 1  # two in the queue, and one of them has ended
    assert {job.number for job in ended} == set(taken) == {0, 1, 2, 3}
    errors = [job.error() for job in sorted(ended, key=lambda job: job.number)]
    assert re.fullmatch(r"SLURM job \d+: FAILED \(NonZeroExitCode\); .* slurm/", errors[0])
    assert re.fullmatch(r"SLURM job \d+: CANCELLED; .* slurm/", errors[1])
    assert errors[2:] == [None, "no"]


@real
def test_a_failing_rank_ends_the_others_and_the_first_can_write_the_reason(
    tmp_path: Path,
) -> None:
    endings = ("exec sleep 300", "sleep 2; echo why > error.txt; exit 2")
    jobs = [
        bash(tmp_path, f"if [ $SLURM_PROCID = 1 ]; then exit 1; fi; {ending}", number, devices=2)
        for number, ending in enumerate(endings)
    ]
    assert set(launcher().run(jobs)) == set(jobs)
    assert "FAILED" in jobs[0].error()
    assert jobs[1].error() == "why"


@real
def test_a_refusal_by_slurm_has_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"SLURM refuses the job: .*partition.* \(launcher\.…=…\)"):
        list(launcher(partition="nowhere").run([bash(tmp_path, "true")]))


@real
def test_a_refused_job_is_submitted_again_when_another_has_ended(tmp_path: Path) -> None:
    """SLURM can limit the jobs of a user. Here a partition accepts no more jobs for a while."""
    jobs = [bash(tmp_path, "sleep 4", 0), bash(tmp_path, "true", 1)]
    scontrol = ["scontrol", "update", "PartitionName=all"]

    def closing() -> Iterator[Job]:
        yield jobs[0]
        subprocess.run([*scontrol, "State=DRAIN"], check=True)
        yield jobs[1]

    ended = []
    try:
        for job in launcher().run(closing()):
            ended.append(job)
            subprocess.run([*scontrol, "State=UP"], check=True)
    finally:
        subprocess.run([*scontrol, "State=UP"], check=True)
    assert ended == jobs


@real
def test_a_resumed_sweep_waits_for_jobs_that_it_had_submitted(tmp_path: Path) -> None:
    job = bash(tmp_path, "echo once >> output; sleep 3; touch metrics.json")
    killed = launcher().run([job, bash(tmp_path, "true", 1)])
    assert next(killed).number == 1
    killed.close()
    assert list(launcher().run([job])) == [job]
    assert (job.directory / "output").read_text() == "once\n"
    assert job.is_over()
    assert len(squeue(job, "%A")) == 2


def test_a_submitted_job_waits_for_a_queue_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
    monkeypatch.setattr(Slurm, "submit", lambda *_, **__: pytest.fail("submitted again"))
    job = bash(tmp_path, "true")
    (job.directory / "slurm").mkdir()
    (job.directory / "slurm" / "7_submitted.pkl").touch()
    states = ("RUNNING", "COMPLETED")
    queues = [None, None, *({"7": Entry(job.spec.sweep, state, "None")} for state in states)]
    monkeypatch.setattr(slurm, "read_queue", partial(next, iter(queues)))
    assert list(launcher(poll_seconds=0).run([job])) == [job]


@real
def test_sbatch_does_not_see_the_job_in_which_a_sweep_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SLURM_NTASKS", "SLURM_MEM_PER_NODE", "SUBMITIT_EXECUTOR", "MASTER_ADDR", "RANK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    before = dict(os.environ)
    with outside_any_job():
        left = {name: value for name, value in before.items() if name in os.environ}
        assert set(before) - set(left) == {
            "SLURM_NTASKS", "SLURM_MEM_PER_NODE", "SUBMITIT_EXECUTOR", "MASTER_ADDR", "RANK",
        }  # fmt: skip
        assert {"SLURM_CONF", "SBATCH_ACCOUNT"} <= set(left)
    assert dict(os.environ) == before


@pytest.mark.parametrize(("line", "waits"), [("kill -TERM $$", True), ("exit 3", False)])
def test_a_run_that_slurm_has_asked_to_end_waits_to_be_requeued(
    line: str, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import submitit

    slept = []
    monkeypatch.setattr(slurm.time, "sleep", slept.append)
    first = type("First", (), {"USR_SIG": "USR2", "global_rank": 0})
    monkeypatch.setattr(submitit, "JobEnvironment", first)
    with pytest.raises(SystemExit):
        slurm.Task(["bash", "-c", line])()
    assert slept == [slurm.SECONDS_TO_BE_ENDED] * waits


def test_missing_programs_and_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"launcher.max_jobs must be >= 1, got 0"):
        launcher(max_jobs=0)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"there is no sbatch on this machine: .*launcher=local"):
        launcher()
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install kd_lightning\[slurm\]"):
        launcher()


# Real runs

# without batch norm, two processes have the same gradients as one (see test_ddp)
RUN = (
    "method=dual_student", "data=synthetic", "data.num_train=96", "data.num_test=33",
    "data.batch_size=16", "teacher.trainer.max_epochs=1", "optimizer=sgd",
    "model@method.students.a=mlp", "model@method.students.b=mlp", "method.students.b.widths=[24]",
    "callbacks=quiet", "logger=none", "threads=1", "teacher.check=warn",
)  # fmt: skip


def run(folder: Path, number: int, *overrides: str, **spec) -> Job:
    overrides = (*RUN, *overrides, f"outputs={folder}")
    spec = JobSpec(number, "", {}, overrides, sweep=f"sweep of {folder.name}", **spec)
    return create_job(folder / f"{number:04}", spec)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / "last.ckpt", weights_only=True)["state_dict"]


def number_of(job: Job) -> str:
    (path,) = (job.directory / "slurm").glob("*_submitted.pkl")
    return path.name.partition("_")[0]


def disturb(jobs: Mapping[Job, Sequence[str]]) -> None:
    """When a job has finished an epoch, runs its command with its SLURM number."""
    left = dict(jobs)

    def all_disturbed() -> bool:
        assert not [job.error() for job in left if job.error()]
        for job in [job for job in left if (job.directory / "last.ckpt").exists()]:
            subprocess.run([*left.pop(job), number_of(job)], check=True)
        return not left

    wait_until(all_disturbed)


def start_now(job: Job) -> None:
    """Starts a requeued job now; SLURM would wait two minutes."""
    wait_until(lambda: f"{number_of(job)}|PENDING" in squeue(job, "%A|%T"))
    command = ["scontrol", "update", f"JobId={number_of(job)}", "StartTime=now"]
    subprocess.run(command, check=True)


@real
def test_preempted_and_requeued_runs_end_like_undisturbed_ones(tmp_path: Path) -> None:
    epochs = 60
    preempted = run(tmp_path, 0, f"trainer.max_epochs={epochs}", "hardware=cpu")
    requeued = run(tmp_path, 1, f"trainer.max_epochs={epochs}", "hardware=ddp",
                   "hardware.accelerator=cpu", devices=2)  # fmt: skip
    two_machines = run(tmp_path, 2, "trainer.max_epochs=2", "hardware=multi_node",
                       "hardware.accelerator=cpu", "hardware.devices=1", "hardware.precision=32",
                       num_nodes=2)  # fmt: skip
    jobs = [preempted, requeued, two_machines]
    # the names of the nodes of this SLURM cannot be resolved
    slurm = launcher(setup=["export MASTER_ADDR=127.0.0.1"])
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(lambda: list(slurm.run(jobs)))
        disturb(
            {
                preempted: ["scancel", "--signal=USR2"],  # what submitit asks SLURM to send
                requeued: ["scontrol", "requeue"],
            }
        )
        start_now(preempted)
        start_now(requeued)
        assert set(ended.result(200)) == set(jobs)

    assert [job.state() for job in jobs] == [State.DONE] * 3
    undisturbed, short = (
        distill(*RUN, f"trainer.max_epochs={count}", f"outputs={tmp_path}", "hardware=cpu")
        for count in (epochs, 2)
    )
    for name, value in weights(undisturbed.directory).items():
        assert torch.equal(value, weights(preempted.directory)[name])
    for one, several in ((undisturbed, requeued), (short, two_machines)):
        torch.testing.assert_close(
            weights(several.directory), weights(one.directory), rtol=1e-3, atol=1e-5
        )
    for job, count in zip(jobs, (epochs, epochs, 2), strict=True):
        assert len((job.directory / "epochs.csv").read_text().splitlines()) == count + 1
        assert job.log.read_text().count("ensemble of the students") == 1
    assert (
        len(list(tmp_path.glob("teachers/*/metrics.json"))) == 1
    )  # needed by all at the same time
    assert {*tmp_path.glob("2*")} == {undisturbed.directory, short.directory}
    assert not (tmp_path / "of-the-first-rank").exists()
