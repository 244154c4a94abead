"""Runs jobs on a SLURM cluster, through submitit.

Each job is one SLURM job, with one task for each of its devices, as Lightning expects. The state of
a job is read from SLURM's queue, so SLURM's accounting is not needed. Submitted jobs continue when
the sweep ends.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import write_text
from kd_lightning.base.ranks import LAUNCHER_VARIABLES
from kd_lightning.launchers.process import end
from kd_lightning.launchers.slurm_queue import Entry, has_ended, read_queue
from kd_lightning.records.jobs import Job, JobSpec

# After a failure, the other ranks wait this long, so that the first rank can write the reason.
SECONDS_TO_EXPLAIN = 10.0
SECONDS_TO_BE_ENDED = 300.0  # longer than SLURM waits between its first signal and the last


class Slurm:
    """Runs each job of a sweep as a SLURM job. It is requeued if it is preempted or times out.

    Args:
        timeout_min: the time limit of a job in minutes.
        max_timeouts: how often a job that has timed out is requeued, to resume where it stopped.
        partition: None: the cluster's default; the same for ``account`` and ``qos``.
        account: the account to charge.
        qos: quality of service.
        cpus_per_task: cores of each process; None: the job's ``threads``, or the cluster's default
            if that is null.
        gpus_per_node: GPUs on each machine; None: one per device if ``hardware.accelerator`` is
            gpu, else none.
        mem_gb: memory on each machine, in GB; None: the cluster's default.
        max_jobs: jobs in the queue at the same time; None: all.
        setup: lines of bash that a job runs first, such as "module load cuda".
        parameters: further options of ``sbatch``, by their long names.
        poll_seconds: time between two looks at the queue.
    """

    def __init__(
        self,
        *,
        timeout_min: int,
        max_timeouts: int = 10,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        cpus_per_task: int | None = None,
        gpus_per_node: int | None = None,
        mem_gb: float | None = None,
        max_jobs: int | None = None,
        setup: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        poll_seconds: float = 15.0,
    ) -> None:
        for name, number in (("timeout_min", timeout_min), ("max_jobs", max_jobs)):
            if number is not None and number < 1:
                raise UserError(f"launcher.{name} must be >= 1, got {number}")
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise UserError(
                "launcher=slurm needs submitit: pip install kd_lightning[slurm]"
            ) from error
        missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
        if missing:
            raise UserError(
                f"launcher=slurm needs SLURM's commands, and there is no {missing[0]} on this "
                "machine: start the sweep where jobs are submitted, or elsewhere (launcher=local)"
            )
        self.timeout_min = timeout_min
        self.max_timeouts = max_timeouts
        self.choices = {"partition": partition, "account": account, "qos": qos}
        self.cpus_per_task = cpus_per_task
        self.gpus_per_node = gpus_per_node
        self.mem_gb = mem_gb
        self.max_jobs = max_jobs
        self.setup = list(setup)
        self.parameters = dict(parameters or {})
        self.poll_seconds = poll_seconds

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Submits jobs up to ``max_jobs`` in the queue; yields each when SLURM has finished it.

        A job that is still in the queue from before the sweep was resumed is not submitted again.
        """
        source = iter(jobs)
        refused = None
        queued: dict[str, Job] = {}
        while True:
            queue = read_queue()
            for number, job in list(queued.items()):
                if queue is not None and has_ended(queue.get(number)):
                    del queued[number]
                    explain(job, number, queue.get(number))
                    yield job
            while self.max_jobs is None or len(queued) < self.max_jobs:
                job, refused = refused or next(source, None), None
                if job is None:
                    break
                if queue is None and was_submitted(job):
                    refused = job  # it may be in the queue, which does not answer
                    break
                number = already_queued(job, queue or {})
                if number is None:
                    number = self.submit(job, may_be_full=bool(queued))
                if number is None:
                    refused = job  # submitted again when one of our jobs has ended
                    break
                queued[number] = job
            if not queued and refused is None:
                return
            time.sleep(self.poll_seconds)

    def submit(self, job: Job, *, may_be_full: bool) -> str | None:
        """Submits a job and returns its number in SLURM.

        Args:
            may_be_full: a refusal may mean that the user has too many jobs in the queue.

        Returns:
            None if SLURM refuses the job and ``may_be_full``.

        Raises:
            UserError: SLURM refuses the job; the message has SLURM's reason.
        """
        import submitit

        spec = job.spec
        folder = job.directory / "slurm"
        executor = submitit.SlurmExecutor(folder, max_num_timeout=self.max_timeouts)
        executor.update_parameters(**self.request(spec))
        try:
            with outside_any_job():
                return executor.submit(Task(job.command())).job_id
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as e:
            if may_be_full:
                return None
            reason = " ".join(str(e).replace("sbatch: error: ", "").split())
            raise UserError(f"SLURM refuses the job: {reason} (launcher.…=…)") from e

    def request(self, spec: JobSpec) -> dict[str, Any]:
        """What to request from SLURM for a job, with submitit's names."""
        cpus = self.cpus_per_task or spec.threads
        gpus = self.gpus_per_node
        if gpus is None and spec.accelerator in ("gpu", "cuda"):
            gpus = spec.devices
        srun = ["--kill-on-bad-exit=1"]  # otherwise the other ranks would wait forever
        if cpus is not None:
            srun.append(f"--cpus-per-task={cpus}")  # since 22.05, srun ignores that of sbatch
        request = {
            **self.choices,
            "job_name": spec.sweep,
            "comment": f"{spec.number}: {spec.variant}",
            "time": self.timeout_min,
            "nodes": spec.num_nodes,
            "ntasks_per_node": spec.devices,
            "cpus_per_task": cpus,
            "gpus_per_node": gpus,
            "mem": None if self.mem_gb is None else f"{round(self.mem_gb * 1024)}MB",
            "setup": self.setup,
            "srun_args": srun,
            "additional_parameters": {"requeue": True, **self.parameters},
        }
        return {name: value for name, value in request.items() if value is not None}


@dataclass(frozen=True)
class Task:
    """What SLURM runs for each device: the job's command, with SLURM's environment variables.

    SLURM sends a signal when the job is preempted or is about to time out, and submitit then
    requeues the job. The same command resumes from the last finished epoch.
    """

    command: Sequence[str]

    def __call__(self) -> None:
        from submitit import JobEnvironment

        # SLURM sends this signal to all processes of a task; the run itself must ignore it
        number = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        process = subprocess.Popen(
            self.command, preexec_fn=lambda: signal.signal(number, signal.SIG_IGN)
        )
        try:
            exit_code = process.wait()
        finally:  # also when submitit ends this process to requeue the job
            end(process)
        if exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            # SLURM sends this some time before it ends the job; only a job that it ends is requeued
            time.sleep(SECONDS_TO_BE_ENDED)
        if exit_code:
            if JobEnvironment().global_rank > 0:
                time.sleep(SECONDS_TO_EXPLAIN)
            sys.exit(exit_code if exit_code > 0 else 128 - exit_code)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def explain(job: Job, number: str, entry: Entry | None) -> None:
    """Writes why a job failed, if the job could not do this itself."""
    if (entry and entry.state == "COMPLETED") or job.is_over() or job.error():
        return
    state = entry.state if entry else "no longer in the queue"
    if entry and entry.reason != "None":
        state += f" ({entry.reason})"
    text = f"SLURM job {number}: {state}; its output is in slurm/\n"
    write_text(job.directory / "error.txt", text)


def was_submitted(job: Job) -> bool:
    return any((job.directory / "slurm").glob("*_submitted.pkl"))


def already_queued(job: Job, queue: Mapping[str, Entry]) -> str | None:
    """The SLURM number of a job that was submitted earlier and has not ended; None otherwise."""
    for path in (job.directory / "slurm").glob("*_submitted.pkl"):
        entry = queue.get(number := path.name.partition("_")[0])
        if entry and entry.name == job.spec.sweep and not has_ended(entry):
            return number
    return None


@contextmanager
def outside_any_job() -> Iterator[None]:
    """Hides the SLURM job in which the sweep itself may run from ``sbatch``, which would use the
    tasks and memory of that job for the new one.
    """
    before = dict(os.environ)
    for name in before:
        of_a_job = name.startswith(("SLURM_", "SUBMITIT_")) and name != "SLURM_CONF"
        if of_a_job or name in LAUNCHER_VARIABLES:
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)
