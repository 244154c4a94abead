"""Jobs on this machine, as many at once as there are devices for."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from types import ModuleType

import torch

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranks import VARIABLES
from kd_lightning.launchers import process
from kd_lightning.records.jobs import Job, Order


@dataclass
class Running:
    """A job's process, and the devices that it has."""

    job: Job
    process: subprocess.Popen | ForkServerProcess
    devices: list[str]

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return self.process.exitcode

    def end(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signum)


class Local:
    """A process for each job of a sweep.

    Jobs of one device are forked from a process that has imported torch and Lightning already,
    which saves each of them these seconds; it has used neither threads nor a GPU, so a fork of it
    is as good as new. Jobs of several devices start anew, for Lightning starts their further
    processes by the command line of the first.

    Args:
        workers: jobs at once; None: as many as there are GPUs for, or without GPUs as many as the
            cores allow with the threads that a job uses.
        warm: fork. False: every job starts anew.
    """

    def __init__(self, *, workers: int | None = None, warm: bool = True) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"launcher.workers must be >= 1 or null, got {workers}")
        self.workers = workers
        self.warm = warm

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Starts each job when there is room for it; gives each back when its process has ended."""
        source = iter(jobs)
        job = next(source, None)
        if job is None:
            return
        gpus = visible_gpus() if job.order.accelerator != "cpu" else []
        free = list(gpus)
        at_once = self.workers or (len(gpus) if gpus else jobs_for_cores(job.order))
        running = list[Running]()
        try:
            while job is not None or running:
                while job is not None and len(running) < at_once:
                    needed = min(job.order.devices, len(gpus))
                    if needed > len(free):
                        break
                    mine, free = free[:needed], free[needed:]
                    running.append(Running(job, self.start(job, mine), mine))
                    job = next(source, None) if len(running) < at_once else None
                ended = [one for one in running if one.exit_code() is not None]
                for one in ended:
                    running.remove(one)
                    free += one.devices
                    one.job.explain(one.exit_code())
                    yield one.job
                if (
                    ended and job is None
                ):  # asked for only now: a search has heard of the ended ones
                    job = next(source, None)
                time.sleep(0.05)
        finally:
            end_all(running)

    def start(self, job: Job, devices: list[str]) -> subprocess.Popen | ForkServerProcess:
        mine = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if any(devices) else {}
        if self.warm and job.order.devices * job.order.num_nodes == 1:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["kd_lightning.run"])
            fork = context.Process(target=run_forked, args=(job.command(), mine))
            with no_main_module():
                fork.start()
            return fork
        return process.start(job.command(), job.log, mine)


def jobs_for_cores(first: Order) -> int:
    """How many jobs at once the cores allow, with the threads of the first in each process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // ((first.threads or cores or 1) * first.devices))


@contextmanager
def no_main_module() -> Iterator[None]:
    """Hides the program's main module: multiprocessing would import it again in every child, which
    needs nothing of it, and where it is a person's script would begin that once more.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def run_forked(command: list[str], environment: dict[str, str]) -> None:
    """Does in this process what ``command``, python -m <module> …, would do in a new one."""
    os.setsid()
    for (
        name
    ) in VARIABLES:  # the sweep itself may be a job of SLURM's, this one is none of its ranks
        os.environ.pop(name, None)
    os.environ.update(environment)
    _, _, module, *sys.argv[1:] = command
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES gives them."""
    count = torch.cuda.device_count()
    names = list(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")))
    return names[:count] or [str(i) for i in range(count)]


def end_all(running: list[Running]) -> None:
    """Asks the jobs to stop, which they do at their last finished epoch, and waits for it."""
    for one in running:
        one.end(signal.SIGTERM)
    deadline = time.monotonic() + process.SECONDS_TO_END
    while any(one.exit_code() is None for one in running):
        if time.monotonic() > deadline:
            for one in running:
                one.end(signal.SIGKILL)  # what it started ends with it
        time.sleep(0.05)
