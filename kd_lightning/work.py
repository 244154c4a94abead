"""Runs one job of a sweep in this process. Launchers start this command.

    python -m kd_lightning.work outputs/sweeps/<sweep>/jobs/0003

Nothing is done for a job that is over. A job that was interrupted is resumed
from its last finished epoch. If another process is running the job, this
command waits for that process first.
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
from contextlib import suppress
from pathlib import Path

from kd_lightning.base.allowed import check_record, needed_words
from kd_lightning.base.errors import Damaged
from kd_lightning.base.files import set_aside, write_text
from kd_lightning.base.interrupts import Interrupted
from kd_lightning.base.kept_files import SUMS, finish_sums
from kd_lightning.base.ranks import is_first_rank, launch_id
from kd_lightning.callbacks.pruning import Pruned
from kd_lightning.config.options import command_parser
from kd_lightning.config.user_messages import user_message
from kd_lightning.config.words_of_file import compose_from_file
from kd_lightning.records.check import check_run
from kd_lightning.records.generations import LAST, PREVIOUS, has_checkpoint
from kd_lightning.records.jobs import JOB_VARIABLE, PARENT_VARIABLE, Job
from kd_lightning.running.run import run

# The files of a job that do not belong to its run. All others are removed when the run is started
# from the beginning.
OF_THE_JOB = (
    "job.json", "log.txt", "progress.json", "error.txt", "trackers.json", ".lock", ".launch", SUMS,
)  # fmt: skip


def work(directory: Path, allow: Sequence[str] = ()) -> int:
    """Runs the job and returns an exit code: 0 if the job is over, 2 for a user error, 128 + n
    after signal n, 1 for a bug.

    Args:
        allow: packages whose functions the job may name.
    """
    job = Job(directory.resolve(), allow=tuple(allow))
    os.environ[JOB_VARIABLE] = str(job.directory)
    if not is_first_rank():  # only the first rank holds the lock and writes the job's files
        if wait_for_first(job):
            with suppress(Pruned):  # the first rank says it
                run_job(job)
        return 0
    with job.locked():
        if job.is_over():
            finish_sums(job.directory)
            return 0
        redirect_output(job.log)
        put_damage_aside(job.directory)
        if (own_id := launch_id()) is not None:  # the other ranks begin
            write_text(job.directory / ".launch", own_id)
        (job.directory / "error.txt").unlink(missing_ok=True)
        job.report(phase="starting", begun=time.time())
        overrides: Sequence[str] = ()
        try:
            overrides = job.spec.overrides
            run_job(job)
            job.report(phase="done")
        except Pruned as pruned:
            print(f"Pruned: {pruned}")
            content = {"epoch": pruned.epoch, "accuracy": pruned.accuracy}
            write_text(job.directory / "pruned.json", json.dumps(content) + "\n")
        except Interrupted as interrupted:
            return 128 + interrupted.signum
        except Exception as error:
            sentence = user_message(error, overrides)
            lines = "".join(traceback.format_exception(error)).splitlines()
            print(f"Error: {sentence}" if sentence else "\n".join(lines), file=sys.stderr)
            write_text(job.directory / "error.txt", (sentence or "\n".join(lines[-6:])) + "\n")
            return 2 if sentence else 1
    return 0


def wait_for_first(job: Job) -> bool:
    """Waits until the first rank of this launch holds the job. Before that, another launch may hold
    the job and even finish it.

    Returns:
        Whether the job still has to be run.
    """
    own_id, holder = launch_id(), job.directory / ".launch"
    while own_id is not None and not (holder.exists() and holder.read_text() == own_id):
        if job.is_over():
            return False
        time.sleep(0.2)
    return True


def run_job(job: Job) -> None:
    """Starts the run of a job, or resumes it from its last finished epoch if there is one."""
    spec = job.spec
    if spec.folder and Path(spec.folder).is_dir():
        os.chdir(spec.folder)
    path = job.directory / "job.json"
    check_record(spec.search or {}, path, job.allow)
    cfg = compose_from_file(spec.overrides, spec.config_dir, path=path, allow=job.allow)
    if has_checkpoint(job.directory):
        cfg.resume = str(job.directory)
        cfg.allow = sorted({*cfg.allow, *needed_words(cfg)})  # what the job itself may name
        run(cfg, [])
        return
    if is_first_rank():
        clear(job.directory)
    cfg.run_dir = str(job.directory)
    run(cfg, list(spec.overrides))


def put_damage_aside(directory: Path) -> None:
    """If a job cannot be resumed, because a file of its run is damaged, renames that file and the
    checkpoints, so that the job is run from its beginning.
    """
    try:
        check_run(directory)
    except Damaged as damage:
        bad = {damage.path, directory / LAST, directory / PREVIOUS}
        aside = [set_aside(path).name for path in sorted(bad) if path.exists()]
        print(
            f"{damage.path} {damage.what}, so the job begins again with its first epoch; set "
            f"aside: {', '.join(aside)}"
        )


def clear(directory: Path) -> None:
    """Removes the files of a run that has not finished an epoch."""
    for path in directory.iterdir():
        if path.is_file() and path.name not in OF_THE_JOB and ".damaged" not in path.name:
            path.unlink()


def redirect_output(log: Path) -> None:
    """Appends everything that this process and its children print from now on to ``log``."""
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def end_with_parent() -> None:
    """Ends this process by SIGTERM soon after the process that started it has ended, which may have
    been before this call.
    """
    # removed from the environment: the processes of other ranks have this one as their parent
    parent = int(os.environ.pop(PARENT_VARIABLE, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)  # time for a clean end
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("work", __doc__)
    parser.add_argument("directory", type=Path, help="a job's directory, with job.json in it")
    parser.add_argument("--allow", nargs="+", default=[], help="packages that it may use")
    parser.add_argument(
        "--with-parent", action="store_true", help="end when the parent process ends"
    )
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    directory = arguments.directory
    if not (directory / "job.json").exists():
        print(f"Error: {directory} is not a job: expected job.json in it", file=sys.stderr)
        sys.exit(2)
    if arguments.with_parent:
        end_with_parent()
    sys.exit(work(directory, arguments.allow))


if __name__ == "__main__":
    main()
