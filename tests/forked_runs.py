"""Command lines in processes that are forked from one that has imported the libraries. The real
commands are started by ``test_ddp.py`` and ``test_bad_input.py``.
"""

from multiprocessing.context import ForkServerProcess
from pathlib import Path

from benchmarks.torture import forked

SECONDS = 240
HERE = str(Path(__file__).parent)  # nets and teachers of the tests are imported by name


def start_run(
    log: Path, *words: str, program: str = "kd_lightning.run", **variables: object
) -> ForkServerProcess:
    """Starts what ``python -m <program> <words>`` does.

    Args:
        log: gets what it prints.
        program: a module, or a file that ends with .py.
        variables: of its environment.
    """
    return forked.start_run(log, *words, program=program, PYTHONPATH=HERE, **variables)


def run_on_two_ranks(folder: Path, *words: str, program: str = "kd_lightning.run") -> str:
    """Does what ``torchrun --nproc-per-node=2 -m <program> <words>`` does.

    Args:
        folder: gets a log of each rank.

    Returns:
        What both ranks printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks = forked.start_ranks(folder, *words, program=program, PYTHONPATH=HERE)
    have_ended = forked.wait_for_all(ranks, SECONDS)
    printed = "".join(log.read_text() for log in sorted(folder.glob("rank*.log")))
    assert have_ended, f"the ranks wait for each other: {printed[-5000:]}"
    assert [rank.exitcode for rank in ranks] == [0, 0], printed[-5000:]
    return printed
