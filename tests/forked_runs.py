"""Command lines in processes that are forked from one that has imported the libraries. The real
commands are started by ``test_ddp.py`` and ``test_bad_input.py``.
"""

import subprocess
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from benchmarks.torture import forked
from kd_lightning.evaluation import metrics

SECONDS = 240
HERE = str(Path(__file__).parent)  # nets and teachers of the tests are imported by name


def quickly() -> None:
    """Measures a net's throughput by three calls, as all tests do."""
    metrics.MEASURED_SECONDS = 0.0


def start_run(
    log: Path, *words: str, program: str = "kd_lightning.run", **variables: object
) -> ForkServerProcess:
    """Starts what ``python -m <program> <words>`` does.

    Args:
        log: gets what it prints.
        program: a module, or a file that ends with .py.
        variables: of its environment.
    """
    variables = {"before": quickly, "PYTHONPATH": HERE, **variables}
    return forked.start_run(log, *words, program=program, **variables)


def command_line(
    folder: Path, *words: str, program: str = "kd_lightning.run", **how: object
) -> subprocess.CompletedProcess:
    """Runs what ``python -m <program> <words>`` does, to its end.

    Args:
        folder: gets what it prints.
        how: see ``benchmarks.torture.forked.start_run``.
    """
    out, errors = folder / "stdout.txt", folder / "stderr.txt"
    process = start_run(out, *words, program=program, errors=errors, **how)
    assert forked.wait_for_all([process], SECONDS), errors.read_text()[-5000:]
    return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), errors.read_text())


def run_on_two_ranks(folder: Path, *words: str, program: str = "kd_lightning.run") -> str:
    """Does what ``torchrun --nproc-per-node=2 -m <program> <words>`` does.

    Args:
        folder: gets a log of each rank.

    Returns:
        What both ranks printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks = forked.start_ranks(folder, *words, program=program, PYTHONPATH=HERE, before=quickly)
    have_ended = forked.wait_for_all(ranks, SECONDS)
    printed = "".join(log.read_text() for log in sorted(folder.glob("rank*.log")))
    assert have_ended, f"the ranks wait for each other: {printed[-5000:]}"
    assert [rank.exitcode for rank in ranks] == [0, 0], printed[-5000:]
    return printed
