"""Runs jobs on the cores of this machine with joblib.

A slot is a place for one running job. joblib gets one task for each slot, not one for each job.
Given an iterable of jobs, it would take several of them in advance, before a search knows the
results of the jobs that have just ended.
"""

import os
import subprocess
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Event

from kd_lightning.base.errors import UserError
from kd_lightning.launchers.local import visible_gpus
from kd_lightning.launchers.process import end, start
from kd_lightning.records.jobs import Job


class Joblib:
    """Runs ``n_jobs`` jobs at the same time, and divides the cores between them.

    It does not assign GPUs; for these use ``launcher=local``.

    Args:
        n_jobs: jobs at the same time; -1: one per core, -2: one less, and so on. joblib counts the
            cores that this process may use; it respects affinity, container limits and
            LOKY_MAX_CPU_COUNT.
    """

    def __init__(self, *, n_jobs: int = -1) -> None:
        if n_jobs == 0:
            raise UserError("launcher.n_jobs must be >= 1, or -1 for one per core, got 0")
        try:
            import joblib
        except ImportError as error:
            raise UserError(
                "launcher=joblib needs joblib: pip install kd_lightning[joblib]"
            ) from error
        self.slots = joblib.effective_n_jobs(n_jobs)
        self.threads = max(1, joblib.cpu_count() // self.slots)

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Starts each job when a slot is free; yields each when its process has ended."""
        from joblib import Parallel, delayed

        queue = JobQueue(self.threads)
        # Threads are enough, because they only wait for processes. There is one more than slots:
        # with a single one, joblib would run it in this thread.
        slots = Parallel(self.slots + 1, backend="threading", return_as="generator_unordered")(
            delayed(queue.run_jobs)() for _ in range(self.slots)
        )
        source, running = iter(jobs), 0
        try:
            while True:
                while running < self.slots and (job := next(source, None)) is not None:
                    is_on_gpu = job.spec.accelerator != "cpu" and len(visible_gpus()) > 1
                    if self.slots > 1 and is_on_gpu:
                        raise UserError(
                            "launcher=joblib gives its jobs no GPUs of their own, so all would use "
                            "the first one: choose launcher=local (launcher.jobs_per_gpu=…), or "
                            "hardware=cpu"
                        )
                    queue.waiting.put(job)
                    running += 1
                if not running:
                    return
                job, outcome = queue.ended.get()
                running -= 1
                if isinstance(outcome, Exception):
                    raise outcome
                job.record_exit(outcome)
                yield job
        finally:
            queue.close(self.slots)
            list(slots)


class JobQueue:
    """Gives jobs to the slots, and collects those that have ended.

    Args:
        threads: CPU threads for each job, unless the job or OMP_NUM_THREADS says otherwise.
    """

    def __init__(self, threads: int) -> None:
        self.waiting = SimpleQueue[Job | None]()
        self.ended = SimpleQueue[tuple[Job, int | Exception]]()
        self._environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        self._processes: dict[Job, subprocess.Popen] = {}
        self._closed = Event()

    def run_jobs(self) -> None:
        """The work of one slot: runs one job after another, until it gets None."""
        while (job := self.waiting.get()) is not None:
            try:
                process = start(job.command(), job.log, self._environment)
                self._processes[job] = process
                if self._closed.is_set():
                    end(process)
                self.ended.put((job, process.wait()))
            except Exception as error:  # otherwise the sweep would wait for this job forever
                self.ended.put((job, error))
            finally:
                self._processes.pop(job, None)

    def close(self, slots: int) -> None:
        """Ends the running jobs, and then the slots."""
        self._closed.set()
        for process in list(self._processes.values()):
            process.terminate()
        for process in list(self._processes.values()):
            end(process)
        for _ in range(slots):
            self.waiting.put(None)
