"""Runs jobs on this machine, as many at the same time as its devices allow."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from types import ModuleType

import torch

from kd_lightning.base.errors import UserError
from kd_lightning.base.interrupts import delay_interrupts
from kd_lightning.base.ranks import without_ranks
from kd_lightning.launchers import process
from kd_lightning.records.jobs import PARENT_VARIABLE, Job, JobSpec


@dataclass
class Running:
    """The process of a job, and the devices that it uses."""

    job: Job
    process: subprocess.Popen | ForkServerProcess
    devices: list[str]

    def exit_code(self) -> int | None:
        """None while the process runs; negative: the signal that ended it."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return self.process.exitcode

    def end(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signum)


class Local:
    """Runs each job of a sweep in its own process.

    A job with one device is forked from a process that has already imported torch and Lightning,
    which saves some seconds. That process has used no threads and no GPU, so a fork of it behaves
    like a new process. A job with several devices starts as a new process, because Lightning starts
    its other ranks by the command line of the first.

    Args:
        workers: jobs at the same time; None: as many as the GPUs allow. Without GPUs: the number of
            cores divided by the threads of a job.
        jobs_per_gpu: jobs that share a GPU. A small network leaves most of a GPU unused.
        warm: fork jobs with one device. False: every job is a new process.
    """

    def __init__(
        self, *, workers: int | None = None, jobs_per_gpu: int = 1, warm: bool = True
    ) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"launcher.workers must be >= 1 or null, got {workers}")
        if jobs_per_gpu < 1:
            raise UserError(f"launcher.jobs_per_gpu must be >= 1, got {jobs_per_gpu}")
        self.workers = workers
        self.jobs_per_gpu = jobs_per_gpu
        self.warm = warm

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Starts each job when its devices are free; yields each when its process has ended."""
        source = iter(jobs)
        job = next(source, None)
        if job is None:
            return
        gpus = visible_gpus()
        running = list[Running]()
        try:
            while job is not None or running:
                while job is not None and len(running) < (at_once := self.at_once(job.spec, gpus)):
                    own_gpus = gpus if job.spec.accelerator != "cpu" else []
                    devices = self.least_used(own_gpus, running)[: job.spec.devices]
                    if len(devices) < min(job.spec.devices, len(own_gpus)):
                        break
                    with delay_interrupts():  # a job that is not in the list is not ended
                        running.append(Running(job, self.start(job, devices), devices))
                    job = next(source, None) if len(running) < at_once else None
                ended = [each for each in running if each.exit_code() is not None]
                for each in ended:
                    running.remove(each)
                    each.job.record_exit(each.exit_code())
                    yield each.job
                # only now, so that a search knows the results of the jobs that have ended
                if ended and job is None:
                    job = next(source, None)
                time.sleep(0.05)
        finally:
            end_all(running)

    def at_once(self, spec: JobSpec, gpus: Sequence[str]) -> int:
        """How many jobs may run when one such as ``spec`` has been started."""
        of_gpus = len(gpus) * self.jobs_per_gpu if spec.accelerator != "cpu" else 0
        return self.workers or of_gpus or jobs_for_cores(spec)

    def least_used(self, gpus: Sequence[str], running: Sequence[Running]) -> list[str]:
        """The GPUs that another job may use, first those with the fewest jobs."""
        jobs_on = Counter(gpu for each in running for gpu in each.devices)
        return sorted((g for g in gpus if jobs_on[g] < self.jobs_per_gpu), key=jobs_on.__getitem__)

    def start(self, job: Job, devices: list[str]) -> subprocess.Popen | ForkServerProcess:
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if any(devices) else {}
        if self.warm and job.spec.devices * job.spec.num_nodes == 1:
            context = multiprocessing.get_context("forkserver")
            # all that kd_lightning.work imports, but not that module, which the fork runs anew
            context.set_forkserver_preload(["kd_lightning.running.run"])
            fork = context.Process(
                target=run_forked,
                args=(job.command(), {**without_ranks(os.environ), **environment}),
            )
            with hide_main_module():
                fork.start()
            return fork
        return process.start(job.command(), job.log, environment)


def jobs_for_cores(first: JobSpec) -> int:
    """How many jobs the cores allow at the same time, if all use as many threads as the first."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // ((first.threads or cores or 1) * first.devices))


@contextmanager
def hide_main_module() -> Iterator[None]:
    """Hides the program's main module from multiprocessing, which would import it in every child.
    The child does not need it, and importing a user's script would run it again.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def run_forked(command: list[str], environment: dict[str, str]) -> None:
    """Does in this process what ``command``, python -m <module> …, would do in a new process."""
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # not forkserver, as in a new process
    os.environ.clear()  # those of the server are as old as the first sweep of its process
    os.environ.update(environment)
    os.environ[PARENT_VARIABLE] = str(os.getppid())  # the server, which ends with the sweep
    if not multiprocessing.parent_process().is_alive():
        return  # the sweep ended before the server came to fork this process
    _, _, module, *sys.argv[1:] = command
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def visible_gpus() -> list[str]:
    """The names of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    count = torch.cuda.device_count()
    names = list(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))
    if count and names and all(name.startswith("MIG-") for name in names):
        return names  # a process can use one of these slices, so one is counted
    return names[:count] or [str(i) for i in range(count)]


def end_all(running: list[Running]) -> None:
    """Asks the jobs to stop, and waits until they have. Jobs that do not stop are killed."""
    for each in running:
        each.end(signal.SIGTERM)
    deadline = time.monotonic() + process.SECONDS_TO_END
    while any(each.exit_code() is None for each in running):
        if time.monotonic() > deadline:
            for each in running:
                each.end(signal.SIGKILL)  # the processes that it has started end too
        time.sleep(0.05)
