"""Which process of a distributed run this is, before any Trainer knows."""

import os
from collections.abc import Mapping

from kd_lightning.base.errors import UserError

# What launchers tell the processes they start; dropped for a run of its own inside another.
VARIABLES = (
    "LOCAL_RANK", "NODE_RANK", "GLOBAL_RANK", "RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE",
    "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR",
    "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE",
    "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_ERROR_FILE",
    "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES", "SLURM_PROCID",
    "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_ID", "PL_GLOBAL_SEED", "PL_SEED_WORKERS",
    "KD_LIGHTNING_RUN_DIR",
)  # fmt: skip


# Of these, what Lightning sets in the process that launches the others.
LEFT_BEHIND = (
    "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "KD_LIGHTNING_RUN_DIR",
)  # fmt: skip


def processes_from_outside() -> int | None:
    """How many processes torchrun or SLURM started for this run; None if neither started it."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):  # a shell, and so for Lightning
        return None
    tasks = os.environ.get("SLURM_NTASKS")
    return None if tasks is None else int(tasks)


def rank_from_outside() -> int | None:
    """The global rank that torchrun or SLURM gave this process; None if neither started it, or
    SLURM no other.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"])
    if (processes_from_outside() or 1) > 1 and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"])
    return None


def launch_id() -> str | None:
    """What the ranks that were started together have in common; None where neither torchrun nor
    SLURM started more than one.
    """
    if rank_from_outside() is None:
        return None
    names = (
        ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
        if ("TORCHELASTIC_RUN_ID" in os.environ)
        else ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID")
    )
    return "-".join(os.environ.get(name, "0") for name in names)


def check_processes(asked: int, num_nodes: int) -> None:
    """Raises ``UserError`` where there will be more or fewer processes than were asked for.

    Args:
        asked: ``hardware.devices`` of each machine, times ``hardware.num_nodes``.
    """
    started = processes_from_outside()
    torchrun = f"torchrun --nnodes={num_nodes} --nproc-per-node={asked // num_nodes}"
    srun = f"srun --nodes={num_nodes} --ntasks-per-node={asked // num_nodes}"
    if started is None and num_nodes > 1:
        raise UserError(
            f"hardware.num_nodes={num_nodes} needs {torchrun} or {srun} to start the run on each "
            "machine, and neither did"
        )
    if started is not None and started != asked:
        raise UserError(
            f"hardware.devices and hardware.num_nodes ask for {asked} processes, and {started} "
            f"were started: change these keys, or start it with {torchrun} or {srun}"
        )
    of_slurm = started is not None and "TORCHELASTIC_RUN_ID" not in os.environ
    if of_slurm and asked > 1 and "SLURM_STEP_ID" not in os.environ:
        raise UserError(
            f"hardware.devices and hardware.num_nodes ask for {asked} processes, and this one is "
            "SLURM's batch script: put srun before the command"
        )


def is_first_rank() -> bool:
    """Whether this process shows and writes: of all ranks the first, or the only one."""
    rank = rank_from_outside()
    return (os.environ.get("LOCAL_RANK", "0") == "0") if rank is None else rank == 0


def without_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` as it would be had no launcher started this process."""
    return {name: value for name, value in environment.items() if name not in VARIABLES}


def forget_ranks() -> None:
    """Removes what Lightning's launcher leaves behind, or the next run would not start its own."""
    if rank_from_outside() is None:
        for name in LEFT_BEHIND:
            os.environ.pop(name, None)
