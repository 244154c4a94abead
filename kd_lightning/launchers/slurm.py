"""Jobs in the queue of a SLURM cluster, through submitit.

A job is one SLURM job with a task for each of its devices, as Lightning wants it. SLURM's own queue
says what has become of it; no accounting is needed. Jobs outlive the sweep that submitted them.
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
from kd_lightning.base.ranks import VARIABLES
from kd_lightning.launchers.process import end
from kd_lightning.launchers.slurm_queue import Entry, is_over, look_at_queue
from kd_lightning.records.jobs import Job, Order

SECONDS_TO_SPEAK = 10.0  # that the first rank has to say what went wrong with all of them


class Slurm:
    """A SLURM job for each job of a sweep, requeued when it is preempted or its time is up.

    Args:
        timeout_min: minutes a job may take before SLURM ends it.
        max_timeouts: how often a job whose time was up is queued again, to go on where it was.
        partition: None: the cluster's default; so for ``account`` and ``qos``.
        account: that is charged.
        qos: quality of service.
        cpus_per_task: cores of each process; None: as many as it uses threads (``threads``), and
            the cluster's default where that is null.
        gpus_per_node: of each machine; None: one per device where ``hardware.accelerator`` is gpu.
        mem_gb: memory on each machine, in GB; None: the cluster's default.
        max_jobs: in the queue at once; None: all.
        setup: lines of bash that a job runs first, such as "module load cuda".
        parameters: of ``sbatch``, by their long names, for whatever else a cluster wants.
        poll_seconds: between two looks at the queue.
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
        """Submits jobs while there is room in the queue; gives back each that SLURM is done with.

        A job that is in the queue already, submitted before the sweep was resumed, is waited for.
        """
        left = iter(jobs)
        held = None
        queued: dict[str, Job] = {}
        while True:
            queue = look_at_queue()
            for number, job in list(queued.items()):
                if queue is not None and is_over(queue.get(number)):
                    del queued[number]
                    explain(job, number, queue.get(number))
                    yield job
            while self.max_jobs is None or len(queued) < self.max_jobs:
                job, held = held or next(left, None), None
                if job is None:
                    break
                number = already_queued(job, queue or {})
                if number is None:
                    number = self.submit(job, may_be_full=bool(queued))
                if number is None:
                    held = job  # offered again when one of ours has ended
                    break
                queued[number] = job
            if not queued:
                return
            time.sleep(self.poll_seconds)

    def submit(self, job: Job, *, may_be_full: bool) -> str | None:
        """SLURM's number of the job; None if it refuses a job more, and that can be.

        Raises:
            UserError: SLURM refuses it, in its own words.
        """
        import submitit

        order = job.order
        folder = job.directory / "slurm"
        executor = submitit.SlurmExecutor(folder, max_num_timeout=self.max_timeouts)
        executor.update_parameters(**self.request(order))
        try:
            with outside_any_job():
                return executor.submit(Task(job.command())).job_id
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as e:
            if may_be_full:
                return None
            said = " ".join(str(e).replace("sbatch: error: ", "").split())
            raise UserError(f"SLURM refuses the job: {said} (launcher.…=…)") from e

    def request(self, order: Order) -> dict[str, Any]:
        """What a job asks of SLURM, in submitit's names."""
        cpus = self.cpus_per_task or order.threads
        gpus = self.gpus_per_node
        if gpus is None and order.accelerator in ("gpu", "cuda"):
            gpus = order.devices
        srun = ["--kill-on-bad-exit=1"]  # or the other ranks would wait for this one for ever
        if cpus is not None:
            srun.append(f"--cpus-per-task={cpus}")  # since 22.05, srun does not take sbatch's
        request = {
            **self.choices,
            "job_name": order.sweep,
            "comment": f"{order.number}: {order.variant}",
            "time": self.timeout_min,
            "nodes": order.num_nodes,
            "ntasks_per_node": order.devices,
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
    """What SLURM runs for each device: the job's command, with SLURM's variables as they are.

    submitit requeues it on its signal, sent when a job is preempted or its time is nearly up; the
    same command then goes on from the last finished epoch.
    """

    command: Sequence[str]

    def __call__(self) -> None:
        from submitit import JobEnvironment

        # SLURM sends a signal to all processes of a task, and this one is not for the run
        number = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        process = subprocess.Popen(
            self.command, preexec_fn=lambda: signal.signal(number, signal.SIG_IGN)
        )
        try:
            exit_code = process.wait()
        finally:  # also when submitit ends this process, to have it requeued
            end(process)
        if exit_code:
            if JobEnvironment().global_rank > 0:
                time.sleep(SECONDS_TO_SPEAK)
            sys.exit(exit_code if exit_code > 0 else 128 - exit_code)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def explain(job: Job, number: str, entry: Entry | None) -> None:
    """Writes why a job ended, where it could not say so itself."""
    if (entry and entry.state == "COMPLETED") or job.is_over() or job.error():
        return
    how = entry.state if entry else "not in its queue any more"
    if entry and entry.reason != "None":
        how += f" ({entry.reason})"
    text = f"SLURM's job {number}: {how}; what it printed is in slurm/\n"
    write_text(job.directory / "error.txt", text)


def already_queued(job: Job, queue: Mapping[str, Entry]) -> str | None:
    """The number under which an earlier sweep submitted the job, if SLURM still has it to do."""
    for path in (job.directory / "slurm").glob("*_submitted.pkl"):
        entry = queue.get(number := path.name.partition("_")[0])
        if entry and entry.name == job.order.sweep and not is_over(entry):
            return number
    return None


@contextmanager
def outside_any_job() -> Iterator[None]:
    """Inside, ``sbatch`` is not told of the SLURM job that the sweep itself may run in: it would
    take that job's tasks and memory for the new one's.
    """
    before = dict(os.environ)
    for name in before:
        of_a_job = name.startswith(("SLURM_", "SUBMITIT_")) and name != "SLURM_CONF"
        if of_a_job or name in VARIABLES:
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)
