"""Runs jobs on a Ray cluster, or with a local Ray on this machine.

Ray chooses the machine of a job and hides the GPUs that belong to other jobs. The job itself is an
ordinary process on that machine. All machines need the sweep's directory and this Python at the
same paths, for example on a shared file system.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from typing import Any

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import write_text
from kd_lightning.base.interrupts import delay_interrupts
from kd_lightning.launchers.process import SECONDS_TO_END, end, start
from kd_lightning.records.jobs import Job, JobSpec

GPUS = ("gpu", "cuda")


class Ray:
    """Runs each job of a sweep as a Ray task.

    Args:
        address: of the cluster. None: a Ray on this machine that ends with the sweep; "auto": the
            cluster that this machine belongs to; host:port; or ray://host:port.
        num_cpus_per_job: cores that Ray reserves for a job; None: the job's ``threads`` (1 if it is
            null) for each device. A job whose ``threads`` is null uses this number of threads.
        num_gpus_per_job: GPUs that Ray reserves for a job; a fraction such as 0.5 is allowed. None:
            one for each device, but none if ``hardware.accelerator`` is cpu, or if it is auto and
            Ray has no GPU.
        max_jobs: jobs that are submitted to Ray at the same time; None: as many as the cluster can
            run now. A cluster that grows on demand only grows for jobs that are submitted.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        num_cpus_per_job: float | None = None,
        num_gpus_per_job: float | None = None,
        max_jobs: int | None = None,
    ) -> None:
        least = {"num_cpus_per_job": num_cpus_per_job, "num_gpus_per_job": num_gpus_per_job}
        for name, number in least.items():
            if number is not None and number < 0:
                raise UserError(f"launcher.{name} must be >= 0 or null, got {number}")
        if num_gpus_per_job is not None and num_gpus_per_job > 1 and num_gpus_per_job % 1:
            raise UserError(
                "launcher.num_gpus_per_job must be a whole number, or at most 1, got "
                f"{num_gpus_per_job}: Ray gives out whole GPUs, or a share of one"
            )
        if max_jobs is not None and max_jobs < 1:
            raise UserError(f"launcher.max_jobs must be >= 1 or null, got {max_jobs}")
        os.environ.setdefault(
            "RAY_USAGE_STATS_ENABLED", "0"
        )  # Ray sends usage statistics otherwise
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise UserError("launcher=ray needs Ray: pip install kd_lightning[ray]") from error
        self.address = address
        self.num_cpus_per_job = num_cpus_per_job
        self.num_gpus_per_job = num_gpus_per_job
        self.max_jobs = max_jobs

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Submits each job when Ray can run it; yields each when its task has ended."""
        import ray

        source = iter(jobs)
        job = next(source, None)
        if job is None:
            return
        with self.connected():
            pending: dict[Future, tuple[Job, Any]] = {}
            try:
                while job is not None or pending:
                    while job is not None and len(pending) < self.capacity(job.spec):
                        with delay_interrupts():  # a task that is not pending is not cancelled
                            task = self.submit(job)
                            pending[task.future()] = job, task
                        job = next(source, None) if len(pending) < self.capacity(job.spec) else None
                    # not ray.wait: an exception raised by a signal handler is lost in it
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        ended, _ = pending.pop(future)
                        explain_end(ended, future)
                        yield ended
                    # only now, so that a search knows the results of the jobs that have ended
                    if job is None:
                        job = next(source, None)
            finally:
                for _, task in pending.values():
                    ray.cancel(task, force=False)
                wait(pending, timeout=SECONDS_TO_END + 5)

    def submit(self, job: Job) -> Any:
        """Submits a job; returns Ray's reference to its exit code."""
        import ray

        cpus, gpus = self.needs(job.spec, ray.cluster_resources())
        # no retries: the user resumes the sweep, and with it a lost job from its last epoch
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(work)
        threads = max(1, int(cpus) // job.spec.devices)
        return task.remote(job.command(), str(job.log), str(threads))

    def needs(self, spec: JobSpec, cluster: Mapping[str, float]) -> tuple[float, float]:
        """The number of cores and of GPUs to reserve for a job.

        Args:
            cluster: the resources of the cluster, as ``ray.cluster_resources`` returns them.
        """
        if spec.num_nodes > 1:
            raise UserError(
                f"launcher=ray runs a job on one machine, got hardware.num_nodes={spec.num_nodes}"
            )
        cpus, gpus = self.num_cpus_per_job, self.num_gpus_per_job
        if cpus is None:
            cpus = (spec.threads or 1) * spec.devices
        if gpus is None:
            auto_is_gpu = spec.accelerator == "auto" and cluster.get("GPU", 0) > 0
            gpus = spec.devices if auto_is_gpu or spec.accelerator in GPUS else 0
        return cpus, gpus

    def capacity(self, spec: JobSpec) -> int:
        """How many jobs like this one may be submitted to Ray at the same time.

        Raises:
            UserError: the cluster is too small for even one.
        """
        import ray

        if self.max_jobs is not None:
            return self.max_jobs
        cluster = ray.cluster_resources()
        capacities = []
        for kind, needed in zip(("CPU", "GPU"), self.needs(spec, cluster), strict=True):
            available = cluster.get(kind, 0)
            if needed > available:
                raise UserError(
                    f"a job needs {needed:g} {kind}, and the Ray cluster has {available:g} "
                    f"(launcher.num_{kind.lower()}s_per_job=…; for a cluster that grows on demand "
                    "launcher.max_jobs=…)"
                )
            if needed:
                capacities.append(int(available / needed))
        return min(capacities, default=int(cluster.get("CPU", 1)))

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connects to Ray, and disconnects at the end unless this process was connected before."""
        import ray

        if ray.is_initialized():
            yield
            return
        options: dict[str, Any] = {}
        if self.address is None:  # little memory is enough, as Ray only transfers exit codes
            options = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
        try:
            with keep_signal_handlers():  # the sweep's own end it cleanly, and Ray replaces them
                ray.init(
                    self.address or "local",
                    log_to_driver=False,
                    logging_level="error",
                    **options,
                )
        except (ConnectionError, ValueError, RuntimeError, AssertionError) as error:
            raise UserError(
                f"Ray cannot be reached: {' '.join(str(error).split())} (launcher.address=…)"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()  # ends a local Ray; a cluster keeps running


def work(command: Sequence[str], log: str, threads: str) -> int:
    """Runs a job on the machine that Ray has chosen; returns its exit code."""
    received: list[int] = []
    with keep_signal_handlers():
        # those of Ray would interrupt even start() or end(), and the job would outlive its sweep
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda signum, _: received.append(signum))
        process = start(command, log, {"OMP_NUM_THREADS": threads})
        try:
            while process.poll() is None and not received:  # Ray cancels a task by SIGINT
                time.sleep(0.1)
        finally:
            end(process)
    if received:
        signal.raise_signal(max(received))  # SIGTERM, if it came too
    return process.returncode


def explain_end(job: Job, future: Future) -> None:
    """Writes how a job's task ended, if the job could not do this itself."""
    import ray

    try:
        job.record_exit(future.result())
    except ray.exceptions.RayError as error:
        if not job.is_over() and not job.error():
            message = str(error).strip().partition("\n")[0]
            write_text(job.directory / "error.txt", f"Ray lost its worker: {message}\n")


@contextmanager
def keep_signal_handlers() -> Iterator[None]:
    """Restores the handlers of SIGINT and SIGTERM at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # the handler is None: it was not set by Python
                signal.signal(number, handler)
