"""Reads SLURM's queue, with one request for all jobs of the user."""

import os
import subprocess
import warnings
from dataclasses import dataclass

# States of jobs that have ended. A requeued job is PENDING again.
FINAL = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
     "PREEMPTED", "REVOKED", "TIMEOUT")
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A job in SLURM's queue."""

    name: str
    state: str
    reason: str


def read_queue() -> dict[str, Entry] | None:
    """The user's jobs by number. Jobs that have ended stay in the queue for some minutes. None if
    SLURM does not answer.
    """
    command = ["squeue", f"--user={os.getuid()}", "--states=all", "--noheader"]
    done = subprocess.run(
        [*command, "--format=%A|%T|%r|%j"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        warnings.warn(f"squeue does not answer: {done.stderr.strip()}", stacklevel=2)
        return None
    queue = {}
    for line in done.stdout.splitlines():
        number, state, reason, name = line.split("|", 3)
        queue[number] = Entry(name, state, reason)
    return queue


def has_ended(entry: Entry | None) -> bool:
    """Whether a job has ended. None: the job has left the queue, so it ended some minutes ago."""
    return entry is None or entry.state in FINAL
