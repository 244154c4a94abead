"""Does one job of a sweep, in this process. What a launcher starts; rarely typed.

    python -m kd_lightning.work outputs/sweeps/<sweep>/jobs/0003

A job that is over is left alone, one that was half done goes on from its last finished epoch, and
one that another process works on is waited for.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.base.files import write_text
from kd_lightning.base.interrupts import Interrupted
from kd_lightning.base.ranks import is_first_rank, launch_id
from kd_lightning.callbacks.pruning import Pruned
from kd_lightning.config.command_line import sentence_of
from kd_lightning.records.jobs import VARIABLE, Job
from kd_lightning.run import compose, run

# What a job's directory holds besides its run; all else goes where a run is begun anew.
OF_THE_JOB = (
    "job.json", "log.txt", "progress.json", "error.txt", "trackers.json", ".lock", ".launch",
)  # fmt: skip


def work(directory: Path) -> int:
    """Does the job and returns an exit code: 0 when nothing is left to do for it, 2 for a person's
    mistake, 128 + n after signal n, 1 for a bug.
    """
    job = Job(directory.resolve())
    os.environ[VARIABLE] = str(job.directory)
    if not is_first_rank():  # the first one holds the job, and speaks for it
        if wait_for_first(job):
            run_job(job)
        return 0
    with job.held():
        if job.is_over():
            return 0
        if (mine := launch_id()) is not None:
            write_text(job.directory / ".launch", mine)
        redirect_output(job.log)
        (job.directory / "error.txt").unlink(missing_ok=True)
        job.report(phase="starting", begun=time.time())
        overrides: Sequence[str] = ()
        try:
            overrides = job.order.overrides
            run_job(job)
            job.report(phase="done")
        except Pruned as pruned:
            print(f"Pruned: {pruned}")
            about = {"epoch": pruned.epoch, "accuracy": pruned.accuracy}
            write_text(job.directory / "pruned.json", json.dumps(about) + "\n")
        except Interrupted as interrupted:
            return 128 + interrupted.signum
        except Exception as error:
            sentence = sentence_of(error, overrides)
            lines = "".join(traceback.format_exception(error)).splitlines()
            print(f"Error: {sentence}" if sentence else "\n".join(lines), file=sys.stderr)
            write_text(job.directory / "error.txt", (sentence or "\n".join(lines[-6:])) + "\n")
            return 2 if sentence else 1
    return 0


def wait_for_first(job: Job) -> bool:
    """Whether there is something to do, once the first of the ranks that were started with this one
    holds the job: another launch may hold it still, and even do it.
    """
    mine, told = launch_id(), job.directory / ".launch"
    while mine is not None and not (told.exists() and told.read_text() == mine):
        if job.is_over():
            return False
        time.sleep(0.2)
    return True


def run_job(job: Job) -> None:
    """The run that a job orders, from its last finished epoch if there is one."""
    order = job.order
    if order.folder and Path(order.folder).is_dir():
        os.chdir(order.folder)
    cfg = compose(order.overrides, order.config_dir)
    if (job.directory / "last.ckpt").exists():
        cfg.resume = str(job.directory)
        run(cfg, [])
        return
    if is_first_rank():
        clear(job.directory)
    cfg.run_dir = str(job.directory)
    run(cfg, list(order.overrides))


def clear(directory: Path) -> None:
    """Removes what a run left that finished no epoch."""
    for path in directory.iterdir():
        if path.is_file() and path.name not in OF_THE_JOB:
            path.unlink()


def redirect_output(log: Path) -> None:
    """From here on, all that this process and its children print is added to ``log``."""
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def end_with_parent() -> None:
    """Ends this process, by SIGTERM, soon after the one that started it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)  # to end cleanly
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kd_lightning.work", description=__doc__)
    parser.add_argument("directory", type=Path, help="a job's directory, with job.json in it")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent does")
    words = parser.parse_args()
    if not (words.directory / "job.json").exists():
        print(f"Error: {words.directory} is no job: expected job.json in it", file=sys.stderr)
        sys.exit(2)
    if words.with_parent:
        end_with_parent()
    sys.exit(work(words.directory))


if __name__ == "__main__":
    main()
