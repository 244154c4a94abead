"""Jobs on the cores of this machine, counted and run by joblib.

joblib gets one task per slot, not one per job: of an iterable of jobs it would take as many ahead
as it has slots, in a thread of its own, and a search could not learn from what has ended.
"""

import os
import subprocess
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Event

from kd_lightning.base.errors import UserError
from kd_lightning.launchers.process import end, start
from kd_lightning.records.jobs import Job


class Joblib:
    """As many jobs at once as joblib counts; the cores are shared out among them.

    It knows nothing of GPUs: for these take ``launcher=local``.

    Args:
        n_jobs: jobs at once; -1: one per core, -2: one less, and so on. joblib counts the cores
            that this process may use: affinity, container limits and LOKY_MAX_CPU_COUNT included.
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
        """Starts each job when there is room for it; gives each back when its process has ended."""
        from joblib import Parallel, delayed

        desk = Desk(self.threads)
        # Threads suffice, for all they do is wait for processes. One more than slots, or joblib
        # would run a single one in this thread.
        slots = Parallel(self.slots + 1, backend="threading", return_as="generator_unordered")(
            delayed(desk.serve)() for _ in range(self.slots)
        )
        source, busy = iter(jobs), 0
        try:
            while True:
                while busy < self.slots and (job := next(source, None)) is not None:
                    desk.todo.put(job)
                    busy += 1
                if not busy:
                    return
                job, how = desk.ended.get()
                busy -= 1
                if isinstance(how, Exception):
                    raise how
                job.explain(how)
                yield job
        finally:
            desk.close(self.slots)
            list(slots)


class Desk:
    """Where the slots take jobs from and give them back to.

    Args:
        threads: of the CPU for each job, where neither it nor OMP_NUM_THREADS says otherwise.
    """

    def __init__(self, threads: int) -> None:
        self.todo = SimpleQueue[Job | None]()
        self.ended = SimpleQueue[tuple[Job, int | Exception]]()
        self._share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        self._processes: dict[Job, subprocess.Popen] = {}
        self._closed = Event()

    def serve(self) -> None:
        """One slot: a job after the other, until there is None."""
        while (job := self.todo.get()) is not None:
            try:
                self._processes[job] = process = start(job.command(), job.log, self._share)
                if self._closed.is_set():
                    end(process)
                self.ended.put((job, process.wait()))
            except Exception as error:  # the sweep would wait for this job for ever
                self.ended.put((job, error))
            finally:
                self._processes.pop(job, None)

    def close(self, slots: int) -> None:
        """Ends what runs, and the slots after it."""
        self._closed.set()
        for process in list(self._processes.values()):
            process.terminate()
        for process in list(self._processes.values()):
            end(process)
        for _ in range(slots):
            self.todo.put(None)
