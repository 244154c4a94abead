"""Command lines in processes that are forked from one that has imported the libraries: each does
what a new process would do, without the seconds of the imports.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from kd_lightning.base import threads
from kd_lightning.base.ranks import without_ranks
from kd_lightning.launchers.local import hide_main_module

# A start reads the exit codes of all processes that have ended. If another thread reads one of them
# at the same moment, one of the two finds nothing and takes the exit code to be 255.
_EXIT_CODES = threading.Lock()


def start_run(
    log: Path,
    *words: str,
    program: str = "kd_lightning.run",
    before: Callable[[], None] | None = None,
    errors: Path | None = None,
    **variables: object,
) -> ForkServerProcess:
    """Starts what ``python -m <program> <words>`` does, in a session of its own.

    Args:
        log: what it prints is appended to it.
        errors: gets what it writes to stderr; None: ``log``.
        program: a module, or a file that ends with .py.
        before: called in the process before the program; it can be pickled.
        variables: of its environment; PYTHONPATH is put before that of this process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kd_lightning.running.run"])  # imports all that a run needs
    environment = {**without_ranks(os.environ), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment.pop("WANDB_SERVICE", None)  # it would write through a process of this one
    environment |= {name: str(value) for name, value in variables.items()}
    paths = [environment.get("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    process = context.Process(
        target=run_forked, args=(program, words, environment, (log, errors or log), before)
    )
    with _EXIT_CODES, hide_main_module():
        process.start()
    return process


def run_forked(
    program: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    logs: tuple[Path, Path],
    before: Callable[[], None] | None,
) -> None:
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # as in a new process, not forkserver
    # torch has read OMP_NUM_THREADS before the fork
    torch.set_num_threads(1)
    threads.DEFAULT_THREADS = 1
    for stream, log in enumerate(logs, 1):
        with log.open("ab") as file:
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = words
    if before is not None:
        before()
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def start_ranks(folder: Path, *words: str, **how: object) -> list[ForkServerProcess]:
    """Starts what ``torchrun --nproc-per-node=2 -m <program> <words>`` does.

    Args:
        folder: gets a log of each rank.
        how: see ``start_run``.
    """
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": free_port(), "TORCHELASTIC_RUN_ID": folder}  # fmt: skip
    return [
        start_run(folder / f"rank{rank}.log", *words, RANK=rank, LOCAL_RANK=rank, **shared, **how)
        for rank in range(2)
    ]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for_all(processes: Sequence[ForkServerProcess], seconds: float) -> bool:
    """Waits for the processes, and kills those that take longer. Returns whether all have ended by
    themselves.
    """
    deadline = time.monotonic() + seconds
    for process in processes:
        wait([process.sentinel], max(0.0, deadline - time.monotonic()))
    with _EXIT_CODES:
        have_ended = all(process.exitcode is not None for process in processes)
    for process in processes:
        kill_session(process)
    return have_ended


def kill_session(process: ForkServerProcess) -> None:
    """Kills a process and all that it has started, as the end of a machine does."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with _EXIT_CODES:
        process.kill()
        process.join()
