"""A real SLURM on this machine: its daemons, and two nodes that are both this machine."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where the daemons are; not on every user's PATH

# All files are in one folder, and nothing is used that a container lacks: cgroups, core binding
CONFIG = """
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# the nodes have the resources below even if the machine has fewer
SlurmdParameters=config_overrides
# seconds between SIGTERM and SIGKILL
KillWait=5
NodeName=one NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=2000
NodeName=two NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=2000
PartitionName=all Nodes=ALL Default=YES
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """Starts SLURM's daemons; the path of its configuration."""
    missing = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=PATH) is None]
    if missing:
        pytest.skip(f"no SLURM here, {missing[0]} is missing: apt-get install slurm-wlm munge")
    with ExitStack() as stack:
        # a short path, because the path of a socket has at most 107 characters
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm")))
        folder.chmod(0o755)  # munge refuses a socket that not every user can reach
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        config = folder / "slurm.conf"
        user = pwd.getpwuid(os.getuid()).pw_name
        config.write_text(CONFIG.format(folder=folder, user=user, ports=free_ports(3)))
        files = [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
        # --force: otherwise munge does not start as root, or with a folder in /tmp
        munged = ["munged", "--foreground", "--force", f"--key-file={key}", *files]
        stack.enter_context(daemon([*munged, f"--socket={folder}/munge.socket"], config))
        wait_for("munge", lambda: (folder / "munge.socket").exists(), folder)
        stack.enter_context(daemon(["slurmctld", "-D", "-i"], config))
        for node in ("one", "two"):
            stack.enter_context(daemon(["slurmd", "-D", "-N", node], config))
        wait_for("its nodes", lambda: output_of(config, "sinfo", "-h", "-o%T%D") == "idle2", folder)
        stack.callback(end_jobs, config)  # runs before the daemons end
        yield config


@pytest.fixture
def slurm(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SLURM's commands use the SLURM of ``cluster``, whose queue is empty before and after."""
    monkeypatch.setenv("SLURM_CONF", str(cluster))
    yield
    end_jobs(cluster)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def daemon(command: list[str], config: Path) -> Iterator[None]:
    """Runs a daemon in the foreground. If this process is killed, the daemon ends too."""
    with (config.parent / f"{command[0]}.out").open("ab") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", *command],
            env={**os.environ, "PATH": PATH, "SLURM_CONF": str(config)},
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def output_of(config: Path, *command: str) -> str:
    env = {**os.environ, "SLURM_CONF": str(config)}
    return subprocess.run(command, env=env, capture_output=True, text=True).stdout.strip()


def wait_for(what: str, is_ready, folder: Path) -> None:
    deadline = time.monotonic() + 30
    while not is_ready():
        if time.monotonic() > deadline:
            output = "\n".join(path.read_text()[-1000:] for path in sorted(folder.glob("*.out")))
            pytest.fail(f"SLURM is installed, and {what} did not start:\n{output}", pytrace=False)
        time.sleep(0.1)


def end_jobs(config: Path) -> None:
    """Cancels all jobs, and waits until the queue is empty."""
    output_of(config, "scancel", f"--user={os.getuid()}")
    wait_for("its empty queue", lambda: not output_of(config, "squeue", "-h"), config.parent)
