"""The rank of this process in a distributed run, before there is a Trainer."""

import os
import time
from collections.abc import Mapping

from kd_lightning.base.errors import UserError

STARTED = time.time()  # of this process, or little later

# Environment variables by which launchers describe a process to itself. They are removed for a
# separate run that is started inside another one.
LAUNCHER_VARIABLES = (
    "LOCAL_RANK", "NODE_RANK", "GLOBAL_RANK", "RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE",
    "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR",
    "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE",
    "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_ERROR_FILE",
    "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES", "SLURM_PROCID",
    "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_ID", "PL_GLOBAL_SEED", "PL_SEED_WORKERS",
    "KD_LIGHTNING_RUN_DIR",
)  # fmt: skip


# Those of them that Lightning sets in the process that starts the other ones.
LIGHTNING_VARIABLES = (
    "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "KD_LIGHTNING_RUN_DIR",
)  # fmt: skip


def launcher_world_size() -> int | None:
    """The number of processes that torchrun or SLURM started for this run; None without them."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    # an interactive shell, in which Lightning starts the processes; Lightning checks it like this
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    tasks = os.environ.get("SLURM_NTASKS")
    return None if tasks is None else int(tasks)


def launcher_rank() -> int | None:
    """The global rank of this process from torchrun or SLURM; None without them, or if it is the
    only process that SLURM started.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"])
    if (launcher_world_size() or 1) > 1 and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"])
    return None


def launch_id() -> str | None:
    """A text that is the same for all ranks that were started together; None unless torchrun or
    SLURM started them. Each launch has another one, except those of ``has_common_id``.
    """
    if launcher_rank() is None:
        return None
    names = (
        ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
        if ("TORCHELASTIC_RUN_ID" in os.environ)
        else ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID")
    )
    return "-".join(os.environ.get(name, "0") for name in names)


def has_common_id() -> bool:
    """Whether other launches have the same ``launch_id``: torchrun names none without
    ``--standalone`` or ``--rdzv-id`` if it is given a port or several machines.
    """
    return os.environ.get("TORCHELASTIC_RUN_ID") == "none"


def check_processes(requested: int, num_nodes: int) -> None:
    """Checks that as many processes are started as the configuration requests.

    Args:
        requested: ``hardware.devices`` of each machine, times ``hardware.num_nodes``.

    Raises:
        UserError: there are more or fewer processes.
    """
    started = launcher_world_size()
    torchrun = f"torchrun --nnodes={num_nodes} --nproc-per-node={requested // num_nodes}"
    srun = f"srun --nodes={num_nodes} --ntasks-per-node={requested // num_nodes}"
    srun += " --kill-on-bad-exit=1"  # or others would wait for a process that has failed
    if started is None and num_nodes > 1:
        raise UserError(
            f"hardware.num_nodes={num_nodes} needs a launcher that starts the run on each machine, "
            f"and there is none: start it with {torchrun} or {srun}"
        )
    if started is not None and started != requested:
        raise UserError(
            f"hardware.devices and hardware.num_nodes request {requested} processes, but {started} "
            f"were started: change these keys, or start the run with {torchrun} or {srun}"
        )
    by_slurm = started is not None and "TORCHELASTIC_RUN_ID" not in os.environ
    if by_slurm and requested > 1 and "SLURM_STEP_ID" not in os.environ:
        raise UserError(
            f"hardware.devices and hardware.num_nodes request {requested} processes, but this "
            "process is SLURM's batch script: put srun before the command"
        )
    if not by_slurm or requested == 1:
        return
    nodes = os.environ.get("SLURM_NNODES", str(num_nodes))
    if nodes != str(num_nodes):
        raise UserError(
            f"SLURM started this run on {nodes} nodes, and hardware.num_nodes={num_nodes}: change "
            f"it, or start the run with {srun}"
        )
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserError(
            "SLURM must be told the tasks of each node, not of all together: start the run with "
            f"{srun}"
        )


def is_first_rank() -> bool:
    """Whether this is the first rank or the only process: it alone prints and writes files."""
    rank = launcher_rank()
    return (os.environ.get("LOCAL_RANK", "0") == "0") if rank is None else rank == 0


def without_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without the variables of launchers."""
    return {name: value for name, value in environment.items() if name not in LAUNCHER_VARIABLES}


def forget_ranks() -> None:
    """Removes the variables that Lightning's launcher leaves. With them, the next run of this
    process would not start its own ranks.
    """
    if launcher_rank() is None:
        for name in LIGHTNING_VARIABLES:
            os.environ.pop(name, None)
