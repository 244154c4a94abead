"""A job's own process, for launchers that start it themselves."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from kd_lightning.base.ranks import without_ranks

SECONDS_TO_END = 30.0  # that a job has after SIGTERM


def start(
    command: Sequence[str], log: Path | str, more: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Starts a job.

    Args:
        command: of the job, ``job.command()``.
        log: what it prints before it opens that itself is added to it.
        more: environment variables, beside this process's.
    """
    with Path(log).open("ab") as file:
        return subprocess.Popen(
            command,
            env={**without_ranks(os.environ), **(more or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is the sweep's to answer
        )


def end(process: subprocess.Popen) -> None:
    """Asks a job to stop, which it does at its last finished epoch, and waits for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
