"""What disturbs a run from inside of its process or at one of its points of writing.

Each is called in the process of the run, so it can be pickled.
"""

import ctypes
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from benchmarks.torture.cases import RUN

CAPABILITIES = 0x20080522  # version 3 of Linux's capset
BALLAST = "ballast"
DAY = 24 * 3600.0
KILLED = "a process that loads data was killed on purpose"


@dataclass(frozen=True)
class Together:
    """Several disturbances."""

    parts: tuple[Callable[[], None], ...]

    def __call__(self) -> None:
        for part in self.parts:
            part()


def fill_the_disk(root: Path) -> None:
    """Leaves no byte on the disk of ``root``, as another program may do."""
    with (root / BALLAST).open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def remove_the_run(root: Path) -> None:
    shutil.rmtree(root / RUN)


def rename_the_run(root: Path) -> None:
    os.rename(root / RUN, root / "elsewhere")


def replace_the_run(root: Path) -> None:
    rename_the_run(root)
    (root / RUN).mkdir()


def lock_the_run(root: Path) -> None:
    """Makes the run's folder read-only; root may write all the same (``give_up_rights``)."""
    (root / RUN).chmod(0o500)


def give_up_rights() -> None:
    """Gives up the rights of root, which may write everywhere, and stays the owner of its files."""
    header, none = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def let_the_clock_jump() -> None:
    """Makes the wall clock jump by years, as it does when it is set."""
    true_time, rng = time.time, random.Random(0)
    time.time = lambda: true_time() + rng.choice([-400 * DAY, -1.0, 0.0, 3600.0, 4000 * DAY])


def slow_down_the_logger() -> None:
    save = CSVLogger.save

    def slow(self: CSVLogger) -> None:
        time.sleep(0.5)
        save(self)

    CSVLogger.save = slow


def kill_a_worker() -> None:
    """Kills the first process that loads data for this one, and prints ``KILLED``."""
    parent = os.getpid()

    def watch() -> None:
        while not (workers := children_called("pt_data_worker", parent)):  # torch's name for them
            time.sleep(0.001)
        os.kill(workers[0], signal.SIGKILL)
        print(KILLED, file=sys.stderr, flush=True)

    threading.Thread(target=watch, daemon=True).start()


def kill_wandb(root: Path) -> None:
    """Kills the process to which this one gives what W&B shall write."""
    del root
    (service,) = children_called("wandb-core", os.getpid())
    os.kill(service, signal.SIGKILL)


def children_called(name: str, parent: int) -> list[int]:
    """The processes of a name that another one has started. It starts many, git for example."""
    found = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            with suppress(OSError):  # it may have ended
                if Path(f"/proc/{child}/comm").read_text().strip() == name:
                    found.append(child)
    return found
