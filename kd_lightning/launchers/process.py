"""Starts and ends the process of a job, for launchers that do this themselves."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from kd_lightning.base.ranks import without_ranks
from kd_lightning.records.jobs import PARENT_VARIABLE

SECONDS_TO_END = 30.0  # between SIGTERM and SIGKILL


def start(
    command: Sequence[str], log: Path | str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Starts a job.

    Args:
        command: ``job.command()``.
        log: the job's log file. What the job prints before it opens this file is appended to it.
        environment: variables to add to those of this process.
    """
    with Path(log).open("ab") as file:
        return subprocess.Popen(
            command,
            env={
                **without_ranks(os.environ),
                PARENT_VARIABLE: str(os.getpid()),
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal reaches only the sweep
        )


def end(process: subprocess.Popen) -> None:
    """Asks a job to stop, and waits until it has. It can be resumed from its last epoch."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
