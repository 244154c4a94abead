"""Which process of a distributed run this is, before any Trainer knows."""

import os
from collections.abc import Mapping

# What launchers tell the processes they start; dropped for a run of its own inside another.
VARIABLES = (
    "LOCAL_RANK", "NODE_RANK", "GLOBAL_RANK", "RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE",
    "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "PL_GLOBAL_SEED",
    "PL_SEED_WORKERS", "KD_LIGHTNING_RUN_DIR",
)  # fmt: skip


# Of these, what Lightning sets in the process that launches the others.
LEFT_BEHIND = (
    "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "KD_LIGHTNING_RUN_DIR",
)  # fmt: skip


def rank_from_outside() -> int | None:
    """The global rank that torchrun or SLURM gave this process; None if neither started it."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"])
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"])
    return None


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
