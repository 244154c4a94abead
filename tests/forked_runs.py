"""Command lines in processes that are forked from one that has imported the libraries: each is
done as in a new process, without the seconds of the imports. The real commands are started by
``test_ddp.py`` and ``test_bad_input.py``.
"""

import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

SECONDS = 240


def start_run(
    log: Path, *words: str, program: str = "kd_lightning.run", **variables: object
) -> ForkServerProcess:
    """Starts what ``python -m <program> <words>`` does.

    Args:
        log: gets what it prints.
        program: a module, or a file that ends with .py.
        variables: of its environment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kd_lightning.work"])  # imports all that a run needs
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    environment |= {name: str(value) for name, value in variables.items()}
    process = context.Process(target=run_forked, args=(program, words, environment, log))
    process.start()
    return process


def run_forked(
    program: str, words: tuple[str, ...], environment: Mapping[str, str], log: Path
) -> None:
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = words
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def run_on_two_ranks(folder: Path, *words: str, program: str = "kd_lightning.run") -> str:
    """Does what ``torchrun --nproc-per-node=2 -m <program> <words>`` does.

    Args:
        folder: gets a log of each rank.

    Returns:
        What both ranks printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / f"rank{rank}.log" for rank in range(2)]
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": free_port(), "TORCHELASTIC_RUN_ID": folder}  # fmt: skip
    ranks = [
        start_run(log, *words, program=program, RANK=rank, LOCAL_RANK=rank, **shared)
        for rank, log in enumerate(logs)
    ]
    wait_for_all(ranks)
    printed = "".join(log.read_text() for log in logs if log.exists())
    assert [rank.exitcode for rank in ranks] == [0, 0], printed[-5000:]
    return printed


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for_all(processes: list[ForkServerProcess]) -> None:
    try:
        for process in processes:
            process.join(SECONDS)
    finally:
        for process in processes:
            process.kill()  # if one failed, the other would wait for it
            process.join()
