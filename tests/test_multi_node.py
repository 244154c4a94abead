"""Two processes act as two machines, started by torchrun or like SLURM does: they are one run."""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from forked_runs import SECONDS, start_run

from benchmarks.torture.forked import wait_for_all
from kd_lightning import distill
from kd_lightning.base.ranks import without_ranks

pytestmark = pytest.mark.slow

# Without batch norm, two processes have the gradients of one, as in test_ddp.
SETTING = (
    "method=dual_student", "data=synthetic", "data.num_train=96", "data.num_test=33",
    "data.batch_size=16", "teacher.trainer.max_epochs=1", "optimizer=sgd", "callbacks=quiet",
    "model@method.students.a=mlp", "model@method.students.b=mlp", "method.students.b.widths=[24]",
    "logger=csv", "threads=1", "teacher.check=warn",
)  # fmt: skip
MACHINES = (
    "hardware=multi_node", "hardware.accelerator=cpu", "hardware.num_nodes=2",
    "hardware.devices=1", "hardware.precision=32",
)  # fmt: skip
Start = Callable[..., list[str]]


def free_port() -> int:
    """A free port above 15000: Lightning uses 15000 + the last four digits of SLURM's job id."""
    while True:
        port = random.randrange(15001, 25000)
        with closing(socket.socket()) as one:
            if one.connect_ex(("127.0.0.1", port)):
                return port


def start(command: list[str], **variables: object) -> subprocess.Popen:
    environment = without_ranks(os.environ) | {"OMP_NUM_THREADS": "1"}
    environment |= {name: str(value) for name, value in variables.items()}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def by_torchrun(folder: Path, *words: str) -> list[str]:
    port = free_port()
    ranks = [
        start(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}",
             "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}",
             "-m", "kd_lightning.run", *words]
        )
        for rank in range(2)
    ]  # fmt: skip
    return finish(ranks)


def by_slurm(folder: Path, *words: str) -> list[str]:
    """Starts them with the variables that srun sets for the two tasks of a job on two nodes, forked
    from one process.
    """
    folder.mkdir()
    job_variables = {
        "SLURM_JOB_ID": f"{free_port() - 15000:04}", "SLURM_JOB_NAME": "distil",
        "SLURM_JOB_NODELIST": "127.0.0.1", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": 2,
        "SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 1, "SLURM_LOCALID": 0,
        "SLURM_STEP_ID": 0,
    }  # fmt: skip
    logs, errors = ([folder / f"{name}{rank}" for rank in range(2)] for name in ("out", "err"))
    ranks = [
        start_run(logs[rank], *words, errors=errors[rank], **job_variables,
                  SLURM_PROCID=rank, SLURM_NODEID=rank)
        for rank in range(2)
    ]  # fmt: skip
    have_ended = wait_for_all(ranks, SECONDS)
    said = "".join(one.read_text()[-3000:] for one in errors)
    assert have_ended, said
    assert [rank.exitcode for rank in ranks] == [0, 0], said
    return [log.read_text() for log in logs]


def finish(processes: list[subprocess.Popen]) -> list[str]:
    """Waits for success of all processes, and returns what they printed."""
    try:
        outputs = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()  # if one failed, the other would wait for it
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [out for out, _ in outputs]


@pytest.mark.parametrize("started", [by_torchrun, by_slurm])
def test_two_machines_make_one_run_that_can_be_resumed(started: Start, tmp_path: Path) -> None:
    # one of both is resumed after its first epoch
    epochs = f"trainer.max_epochs={1 if started is by_slurm else 2}"
    one = distill(*SETTING, epochs, f"outputs={tmp_path}/one", "hardware=cpu")
    words = (*SETTING, *MACHINES, epochs, f"outputs={tmp_path}/two")
    printed = started(tmp_path / "first", *words)
    assert "ensemble of the students" in printed[0]
    assert printed[1] == ""  # the second machine prints nothing
    assert {path.name[:2] for path in (tmp_path / "two").iterdir()} == {"20", "te"}
    (directory,) = (tmp_path / "two").glob("20*")
    assert len(list((tmp_path / "two").glob("teachers/*/metrics.json"))) == 1
    if started is by_slurm:
        one = distill(f"resume={one.directory}", "trainer.max_epochs=2")
        started(tmp_path / "again", f"resume={directory}", "trainer.max_epochs=2")
    assert len((directory / "epochs.csv").read_text().splitlines()) == 3
    assert list((tmp_path / "two").glob("20*")) == [directory]
    ends = [torch.load(d / "last.ckpt", weights_only=True) for d in (one.directory, directory)]
    for name, value in ends[0]["state_dict"].items():
        torch.testing.assert_close(value, ends[1]["state_dict"][name], rtol=1e-4, atol=1e-6)
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["objective"] == pytest.approx(one.objective, abs=1e-6)
    for name, net in one.metrics["nets"].items():  # each of the 33 is counted once
        assert metrics["nets"][name]["test"]["accuracy"] == pytest.approx(
            net["test"]["accuracy"], abs=1e-6
        )
