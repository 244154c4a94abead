"""Jobs on a Ray cluster, or on this machine through a Ray of its own.

Ray chooses the machine and hides the GPUs that are not the job's; the job itself is a process
there, as it would be here. Every machine must see the sweep's directory and this Python under the
same paths: a file system that they share.
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
from kd_lightning.launchers.process import SECONDS_TO_END, end, start
from kd_lightning.records.jobs import Job, Order

GPUS = ("gpu", "cuda")


class Ray:
    """A Ray task for each job of a sweep.

    Args:
        address: of the cluster: None for one of this machine's own, which ends with the sweep;
            "auto" for the one that this machine belongs to; host:port, or ray://host:port.
        num_cpus_per_job: cores that Ray sets aside; None: as many as the job uses threads
            (``threads``, else 1), for each of its devices. A job without ``threads`` uses as many.
        num_gpus_per_job: GPUs that Ray sets aside, a share such as 0.5 allowed; None: one for each
            device, but none where ``hardware.accelerator`` is cpu, or auto and Ray has no GPU.
        max_jobs: handed to Ray at once; None: as many as the cluster has room for when asked. A
            cluster that grows on demand grows only for what it has been handed.
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
        if max_jobs is not None and max_jobs < 1:
            raise UserError(f"launcher.max_jobs must be >= 1 or null, got {max_jobs}")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports to its makers
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise UserError("launcher=ray needs Ray: pip install kd_lightning[ray]") from error
        self.address = address
        self.num_cpus_per_job = num_cpus_per_job
        self.num_gpus_per_job = num_gpus_per_job
        self.max_jobs = max_jobs

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Hands Ray a job when there is room for it; gives each back when its task has ended."""
        import ray

        source = iter(jobs)
        job = next(source, None)
        if job is None:
            return
        with self.connected():
            pending: dict[Future, tuple[Job, Any]] = {}
            try:
                while job is not None or pending:
                    while job is not None and len(pending) < self.room(job.order):
                        task = self.submit(job)
                        pending[task.future()] = job, task
                        job = next(source, None) if len(pending) < self.room(job.order) else None
                    # not ray.wait: what a signal's handler raises is lost in it
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        ended, _ = pending.pop(future)
                        yield told(ended, future)
                    if job is None:  # asked for only now: what has ended was heard of
                        job = next(source, None)
            finally:
                for _, task in pending.values():
                    ray.cancel(task, force=False)
                wait(pending, timeout=SECONDS_TO_END + 5)

    def submit(self, job: Job) -> Any:
        """Ray's reference to the job's exit code."""
        import ray

        cpus, gpus = self.needs(job.order, ray.cluster_resources())
        # a job that is lost is the sweep's to run again, from its last finished epoch
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(work)
        threads = max(1, int(cpus) // job.order.devices)
        return task.remote(job.command(), str(job.log), str(threads))

    def needs(self, order: Order, cluster: Mapping[str, float]) -> tuple[float, float]:
        """Cores and GPUs of a job.

        Args:
            cluster: what it has, in Ray's words.
        """
        if order.num_nodes > 1:
            raise UserError(
                f"launcher=ray runs a job on one machine, got hardware.num_nodes={order.num_nodes}"
            )
        cpus, gpus = self.num_cpus_per_job, self.num_gpus_per_job
        if cpus is None:
            cpus = (order.threads or 1) * order.devices
        if gpus is None:
            best_is_gpu = order.accelerator == "auto" and cluster.get("GPU", 0) > 0
            gpus = order.devices if best_is_gpu or order.accelerator in GPUS else 0
        return cpus, gpus

    def room(self, order: Order) -> int:
        """How many jobs like this one Ray may have at once.

        Raises:
            UserError: not even one would ever find room.
        """
        import ray

        if self.max_jobs is not None:
            return self.max_jobs
        cluster = ray.cluster_resources()
        room = []
        for kind, needed in zip(("CPU", "GPU"), self.needs(order, cluster), strict=True):
            there = cluster.get(kind, 0)
            if needed > there:
                raise UserError(
                    f"a job needs {needed:g} {kind}, and the Ray cluster has {there:g} "
                    f"(launcher.num_{kind.lower()}s_per_job=…; for a cluster that grows on demand "
                    "launcher.max_jobs=…)"
                )
            if needed:
                room.append(int(there / needed))
        return min(room, default=int(cluster.get("CPU", 1)))

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Inside, Ray is there; a Ray that was there before is there after it, too."""
        import ray

        if ray.is_initialized():
            yield
            return
        more: dict[str, Any] = {}
        if self.address is None:  # all that would pass through Ray's memory are exit codes
            more = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
        try:
            with kept_handlers():
                ray.init(
                    self.address or "local",
                    log_to_driver=False,
                    logging_level="error",
                    **more,
                )
        except (ConnectionError, ValueError, RuntimeError, AssertionError) as error:
            raise UserError(
                f"Ray cannot be reached: {' '.join(str(error).split())} (launcher.address=…)"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()  # ends a Ray of our own, and leaves any other


def work(command: Sequence[str], log: str, threads: str) -> int:
    """Runs a job on the machine that Ray has chosen; returns its exit code."""
    process = start(command, log, {"OMP_NUM_THREADS": threads})
    try:
        while process.poll() is None:  # process.wait() would not hear that Ray cancels the task
            time.sleep(0.1)
        return process.returncode
    finally:
        end(process)


def told(job: Job, future: Future) -> Job:
    """The job of a task that has ended, with a word on how if it could not say so itself."""
    import ray

    try:
        job.explain(future.result())
    except ray.exceptions.RayError as error:
        if not job.is_over() and not job.error():
            said = str(error).strip().partition("\n")[0]
            write_text(job.directory / "error.txt", f"Ray lost its worker: {said}\n")
    return job


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Ray puts handlers of its own in the place of the sweep's, which end it cleanly."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # None: it was set by something that is not Python
                signal.signal(number, handler)
