"""What SLURM's queue says of a person's jobs. It is asked once for all of them, and kindly."""

import os
import subprocess
import warnings
from dataclasses import dataclass

# States after which nothing follows; a requeued job is PENDING again.
FINAL = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
     "PREEMPTED", "REVOKED", "TIMEOUT")
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A line of SLURM's queue."""

    name: str
    state: str
    reason: str


def look_at_queue() -> dict[str, Entry] | None:
    """This person's jobs that SLURM knows, by number, ended ones among them for some minutes; None
    if it does not answer now.
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


def is_over(entry: Entry | None) -> bool:
    """Whether SLURM is done with a job; of one that ended some minutes ago it knows nothing."""
    return entry is None or entry.state in FINAL
