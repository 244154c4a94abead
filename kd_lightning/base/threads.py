"""The CPU threads of this process."""

import os

import torch

from kd_lightning.base.errors import UserError

MOST_THREADS = 256  # also on a small machine; the system refuses many more, which ends the process
DEFAULT_THREADS = torch.get_num_threads()


def use_threads(threads: int | None) -> None:
    """Sets the CPU threads of this process; None: torch's own choice."""
    most = max(MOST_THREADS, 4 * (os.cpu_count() or 1))
    if threads is not None and threads > most:
        raise UserError(f"threads must be at most {most} on this machine, got {threads}")
    torch.set_num_threads(threads or DEFAULT_THREADS)
