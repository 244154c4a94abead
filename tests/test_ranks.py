"""Which process of a distributed run this is, from what its launcher left in the environment."""

import pytest

from kd_lightning.ranks import (
    VARIABLES,
    forget_ranks,
    is_first_rank,
    rank_from_outside,
    without_ranks,
)


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "rank", "first"),
    [
        ({}, None, True),
        ({"LOCAL_RANK": "0"}, None, True),  # what Lightning's launcher sets in the first process
        ({"LOCAL_RANK": "1"}, None, False),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0"}, 0, True),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "2", "LOCAL_RANK": "0"}, 2, False),  # second machine
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, 3, False),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None, True),
    ],
)
def test_rank_is_that_of_the_launcher(
    environment: dict, rank: int | None, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank_from_outside() == rank
    assert is_first_rank() is first


def test_a_run_inside_another_sees_no_launcher() -> None:
    environment = {"PATH": "/bin", "RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1", "SEED": "3"}
    assert without_ranks(environment) == {"PATH": "/bin", "SEED": "3"}


def test_what_lightning_leaves_is_forgotten_and_torchruns_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    forget_ranks()
    assert is_first_rank()
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    forget_ranks()
    assert rank_from_outside() == 1
