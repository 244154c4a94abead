"""The rank of a process in a distributed run, from its launcher's environment variables."""

import os

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranks import (
    LAUNCHER_VARIABLES,
    check_processes,
    forget_ranks,
    is_first_rank,
    launcher_rank,
    without_ranks,
)


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("SLURM_JOB_NAME", raising=False)


@pytest.mark.parametrize(
    ("environment", "rank", "first"),
    [
        ({}, None, True),
        ({"LOCAL_RANK": "0"}, None, True),  # set by Lightning's launcher in the first process
        ({"LOCAL_RANK": "1"}, None, False),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0"}, 0, True),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "2", "LOCAL_RANK": "0"}, 2, False),  # second machine
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, 3, False),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None, True),
        # a shell in a SLURM job, in which Lightning starts the processes itself
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "bash"}, None, True),
        (
            {
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": "0",
                "SLURM_JOB_NAME": "interactive",
                "LOCAL_RANK": "1",
            },
            None,
            False,
        ),
        # torchrun in a SLURM job
        (
            {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "TORCHELASTIC_RUN_ID": "x", "RANK": "0"},
            0,
            True,
        ),
    ],
)
def test_rank_comes_from_the_launcher(
    environment: dict, rank: int | None, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launcher_rank() == rank
    assert is_first_rank() is first


def test_a_run_inside_another_run_has_no_launcher_variables() -> None:
    environment = {"PATH": "/bin", "RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1", "SEED": "3"}
    assert without_ranks(environment) == {"PATH": "/bin", "SEED": "3"}


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
SRUN = {
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_PROCID": "1",
    "SLURM_STEP_ID": "0",
}


@pytest.mark.parametrize("launcher", [TORCHRUN, SRUN])
def test_lightning_detects_no_launcher_without_these_variables(
    launcher: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_detected() -> bool:
        return TorchElasticEnvironment.detect() or SLURMEnvironment.detect()

    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert is_detected()
    remaining = without_ranks(os.environ)
    for name in set(os.environ) - set(remaining):
        monkeypatch.delenv(name)
    assert not is_detected()


@pytest.mark.parametrize(
    ("environment", "requested", "num_nodes", "message"),
    [
        ({}, 1, 1, None),
        ({}, 2, 1, None),  # Lightning starts the other one
        ({}, 4, 2, "torchrun --nnodes=2 --nproc-per-node=2"),
        (TORCHRUN, 2, 1, None),
        (TORCHRUN, 2, 2, None),
        (TORCHRUN, 1, 1, "request 1 processes, but 2 were started"),
        (SRUN, 2, 1, None),
        (SRUN, 4, 2, "srun --nodes=2 --ntasks-per-node=2"),
        (SRUN | {"SLURM_JOB_NAME": "bash"}, 4, 1, None),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"}, 2, 1, "request 2 processes, but 1 were"),
        ({"SLURM_NTASKS": "1"}, 1, 1, None),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, 2, 1, "put srun before the command"),
        (
            SRUN | {"SLURM_NNODES": "2"},
            2,
            1,
            "SLURM started this run on 2 nodes, and hardware",
        ),
        (SRUN | {"SLURM_NNODES": "1"}, 2, 1, None),
        (
            {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"},  # srun --ntasks=2
            *(2, 1, "SLURM must be told the tasks of each node, not of all together"),
        ),
    ],
)
def test_as_many_processes_must_be_started_as_requested(
    environment: dict, requested: int, num_nodes: int, message: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if message is None:
        check_processes(requested, num_nodes)
    else:
        with pytest.raises(UserError, match=message):
            check_processes(requested, num_nodes)


def test_lightnings_variables_are_removed_and_torchruns_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    forget_ranks()
    assert is_first_rank()
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    forget_ranks()
    assert launcher_rank() == 1
