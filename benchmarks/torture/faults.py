"""Runs whose disk, folders, clock, loggers, data-loading processes or neighbours fail.

    python -m benchmarks.torture.faults                   about 3 minutes on 2 quiet cores
    python -m benchmarks.torture.faults --only clock disk faults whose names contain a word
    python -m benchmarks.torture.faults --write           also into benchmarks/results/torture.md

A run either ends with the numbers of an undisturbed one, or says in one sentence what is wrong and
has an exit code that is not 0. Then the fault is repaired and the run is resumed, which must give
the undisturbed numbers. A full disk needs root (a small tmpfs), and is skipped without it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.torture import disturbances as disturb
from benchmarks.torture.cases import (
    CACHED,
    DUAL,
    LONGEST,
    RUN,
    Case,
    differences,
    half_written,
    printed,
)
from benchmarks.torture.forked import wait_for_all
from benchmarks.torture.kills import holder_of, undisturbed
from benchmarks.torture.tool import minutes_since, parser_of, show
from benchmarks.torture.write_points import Point, WritePoints, first_and_last, read_points

TABLE = "Faults"
RECORD = "points.tsv"
DISK = "12m"  # of the small disk
PLAIN = Case("plain", (*DUAL, "trainer.max_epochs=3", "logger=csv"), 0)
WORKERS = Case("workers", (*DUAL, "trainer.max_epochs=3", "data.num_workers=2"), 0)
SHARED = Case("shared", (*DUAL, *CACHED, "trainer.max_epochs=3"), 0)
SECOND_CHECKPOINT = Point("before the rename", f"{RUN}/last.ckpt", 1)
UNWRITABLE = "/proc/kd_lightning"  # nobody can make it


@dataclass(frozen=True)
class Fault:
    """Something that fails.

    Attributes:
        name: in the table.
        case: that is disturbed.
        before: called in the run's process before the run.
        action: called in the run's process at ``point``, with the folder of the case.
        point: of writing.
        words: added to the command line.
        variables: of the environment.
        disk: holds the folder while the fault lasts.
        repair: called with the folder before the run is resumed.
        trace: what a disturbed run has printed; "": nothing certain.
    """

    name: str
    case: Case = PLAIN
    before: Callable[[], None] | None = None
    action: Callable[[Path], None] | None = None
    point: Point = SECOND_CHECKPOINT
    words: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    disk: Callable[[Path], Any] = nullcontext
    repair: Callable[[Path], None] = lambda folder: None
    trace: str = ""


@dataclass(frozen=True)
class Ended:
    """How a disturbed run ended.

    Attributes:
        fault: its name.
        how: "equal numbers", "one sentence", "skipped" or "lost".
        says: the sentence, or what was lost.
    """

    fault: str
    how: str
    says: str = ""


class Skipped(Exception):
    """A fault cannot be made on this machine."""


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mounts a small disk at ``folder``."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        raise Skipped("a small disk needs root, who may mount it")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def read_only_disk(folder: Path) -> Iterator[None]:
    """``small_disk`` that is read-only until it is repaired."""
    with small_disk(folder):
        remount(folder, "ro")
        yield


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def record_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.{RECORD}")


def let_write(folder: Path) -> None:
    (folder / RUN).chmod(0o700)


def put_back(folder: Path) -> None:
    """Undoes ``replace_the_run``."""
    shutil.rmtree(folder / RUN)
    (folder / "elsewhere").rename(folder / RUN)


def empty_disk(folder: Path) -> None:
    (folder / disturb.BALLAST).unlink(missing_ok=True)


FAULTS = (
    Fault("read-only disk from the start", disk=read_only_disk,
          repair=lambda folder: remount(folder, "rw")),
    Fault("run's folder becomes read-only", before=disturb.give_up_rights,
          action=disturb.lock_the_run, repair=let_write),
    Fault("run's folder is removed", action=disturb.remove_the_run),
    Fault("run's folder is renamed", action=disturb.rename_the_run,
          repair=lambda folder: (folder / "elsewhere").rename(folder / RUN)),
    Fault("run's folder is replaced by an empty one", action=disturb.replace_the_run,
          repair=put_back),
    Fault("clock jumps by years", before=disturb.let_the_clock_jump),
    Fault("slow logger (csv, 0.5 s)", before=disturb.slow_down_the_logger),
    Fault("logger csv cannot write", words=(f"logger.csv.name={UNWRITABLE}",),
          trace="logger=csv has failed and is left out"),
    Fault("logger tensorboard cannot write",
          words=("logger=tensorboard", f"logger.tensorboard.name={UNWRITABLE}"),
          trace="logger=tensorboard has failed and is left out"),
    Fault("logger wandb: its process is killed", action=disturb.kill_wandb,
          words=("logger=wandb", "logger.wandb.mode=offline"),
          trace="logger=wandb has failed and is left out"),
    Fault("logger mlflow: its database cannot be made",
          words=("logger=mlflow", f"logger.mlflow.tracking_uri=sqlite:///{UNWRITABLE}/x.db"),
          trace="logger=mlflow has failed and is left out"),
    Fault("logger mlflow: its server is down",
          words=("logger=mlflow", "logger.mlflow.tracking_uri=http://127.0.0.1:9"),
          trace="logger=mlflow has failed and is left out"),
    Fault("data-loading process is killed", WORKERS,
          before=disturb.kill_a_worker, trace=disturb.KILLED),
)  # fmt: skip


FULL_DISK = {"action": disturb.fill_the_disk, "disk": small_disk, "repair": empty_disk}


def full_disk_at_each_write(root: Path) -> list[Fault]:
    """A fault for each file of a run that another program leaves no room for."""
    folder = PLAIN.folder(root, "listed")
    folder.mkdir()
    wait_for_all(PLAIN.start(folder, root / "teachers", watched(folder)), LONGEST)
    points = [p for p in first_and_last(read_points(record_of(folder))) if p.kind == "open"]
    return [Fault("disk becomes full", point=point, **FULL_DISK) for point in points]


def watched(folder: Path, fault: Fault | None = None) -> disturb.Together:
    """What is called in the run's process; without a fault, its points are only listed."""
    watch = WritePoints(folder, record_of(folder))
    if fault is not None and fault.action is not None:
        watch = replace(watch, victim=fault.point, action=fault.action)
    is_first = () if fault is None or fault.before is None else (fault.before,)
    return disturb.Together((*is_first, watch))


def endured(fault: Fault, folder: Path, expected: dict[str, Any]) -> Ended:
    """Runs a case with a fault, repairs it, and resumes."""
    folder.mkdir()
    case = replace(fault.case, words=(*fault.case.words, *fault.words))
    store = folder.parent / "teachers"
    try:
        with fault.disk(folder):
            started = case.start(folder, store, watched(folder, fault), **dict(fault.variables))
            first = judged(started[0], case, folder, expected)
            if first.how == "lost":
                return replace(first, fault=fault.name)
            if fault.action and fault.point not in read_points(record_of(folder)):
                return Ended(fault.name, "lost", f"does not come to {fault.point}")
            if fault.trace not in printed(folder):
                return Ended(fault.name, "lost", "was not disturbed")
            if first.how != "one sentence":
                return replace(first, fault=fault.name)
            fault.repair(folder)
            again = judged(case.start(folder, store)[0], case, folder, expected)
            if again.how != "equal numbers":
                return Ended(fault.name, "lost", f"after the repair: {again.says}")
            return replace(first, fault=fault.name)
    except Skipped as why:
        return Ended(fault.name, "skipped", str(why))


def judged(process: Any, case: Case, folder: Path, expected: dict[str, Any]) -> Ended:
    """How a process ends."""
    log = printed(folder)
    if not wait_for_all([process], LONGEST):
        return Ended("", "lost", "hangs")
    said = printed(folder)[len(log) :]
    if "Traceback" in said:
        return Ended("", "lost", f"a traceback: {said.strip().splitlines()[-1]}")
    if process.exitcode == 0:
        differing = differences(case.outcome(folder), expected) + half_written(folder)
        return Ended("", "lost" if differing else "equal numbers", ", ".join(differing))
    sentences = [line for line in said.splitlines() if line.startswith("Error: ")]
    if len(sentences) != 1:
        return Ended("", "lost", f"exit code {process.exitcode}, {len(sentences)} sentences")
    return Ended("", "one sentence", sentences[0])


def neighbours(count: int, root: Path, expected: dict[str, Any]) -> Ended:
    """Runs at the same time that want one teacher and one cache; the one that makes it is killed,
    and resumed when the others have ended.
    """
    name = f"{count} runs want one teacher and one cache; one is killed"
    shared = root / f"shared-{count}"
    shared.mkdir()
    case = replace(SHARED, words=(*SHARED.words, f"teacher.cache_store={shared / 'cache'}"))
    folders = [case.folder(root, f"{count} {number}") for number in range(count)]
    processes = []
    for folder in folders:
        folder.mkdir()
        processes += case.start(folder, shared)
    victim = killed_holder(shared)
    wait_for_all(processes, LONGEST)
    killed = [folder for folder, p in zip(folders, processes, strict=True) if p.pid == victim]
    for folder in killed:
        wait_for_all(case.start(folder, shared), LONGEST)
    if len(killed) != 1:
        return Ended(name, "lost", "none of them was killed")
    for folder in folders:
        if not (folder / RUN / "metrics.json").exists():
            return Ended(name, "lost", printed(folder)[-500:])
        if differing := differences(case.outcome(folder), expected):
            return Ended(name, "lost", ", ".join(differing))
    trained = sum(printed(folder).count("trained now") for folder in folders)
    return Ended(name, "equal numbers", f"training of the teacher began {trained}x")


def killed_holder(shared: Path) -> int | None:
    """Kills the process that holds the lock of a teacher, and returns its number."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        for lock in shared.glob("*.lock"):
            if (pid := holder_of(lock)) is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                return pid
        time.sleep(0.01)
    return None


def ends(names: Sequence[str], root: Path) -> Iterator[Ended]:
    """Every fault whose name contains one of ``names``; without names, all."""

    def is_wanted(name: str) -> bool:
        return not names or any(word in name for word in names)

    outcomes = {case: undisturbed(case, root).outcome for case in (PLAIN, WORKERS, SHARED)}
    faults = list(FAULTS)
    if is_wanted("disk becomes full"):
        faults += full_disk_at_each_write(root)
    for number, fault in enumerate(faults):
        if is_wanted(fault.name):
            folder = fault.case.folder(root, f"{number} {fault.name}")
            yield endured(fault, folder, outcomes[fault.case])
    for count in (2, 8):
        if is_wanted(f"{count} runs want one teacher"):
            yield neighbours(count, root, outcomes[SHARED])


def table(found: Sequence[Ended]) -> Iterator[str]:
    """The lines of the table: a row per fault."""
    hows = ("equal numbers", "one sentence", "skipped", "lost")
    yield f"| fault | tried | {' | '.join(hows)} | says |"
    yield f"|---|{'---:|' * 5}---|"
    for name in dict.fromkeys(ended.fault for ended in found):
        rows = [ended for ended in found if ended.fault == name]
        counts = [len(rows), *(sum(ended.how == how for ended in rows) for how in hows)]
        yield f"| {name} | {' | '.join(map(str, counts))} | {without_paths(rows[-1].says)} |"


def without_paths(text: str) -> str:
    """A sentence without the folders of this machine."""
    root = tempfile.gettempdir()
    return " ".join(
        f"…/{Path(word).name}" if word.lstrip("('").startswith(root) else word
        for word in text.removeprefix("Error: ").split()
    ).replace("|", "\\|")


def main(words: Sequence[str] | None = None) -> int:
    """The command line. Returns the number of faults in which something was lost."""
    words = sys.argv[1:] if words is None else words
    parser = parser_of("faults", __doc__)
    parser.add_argument("--only", nargs="+", default=[], help="faults with one of these words")
    arguments = parser.parse_args(words)
    root, start = Path(tempfile.mkdtemp(prefix="faults-")), time.perf_counter()
    (root / "teachers").mkdir()
    found = []
    for ended in ends(arguments.only, root):
        print(f"{ended.fault}: {ended.how}: {ended.says}", file=sys.stderr, flush=True)
        found.append(ended)
    some = f": {', '.join(arguments.only)}" if arguments.only else ""
    end = minutes_since(start)
    show("faults", f"{TABLE}{some}", words, table(found), end, write=arguments.write)
    return sum(ended.how == "lost" for ended in found)


if __name__ == "__main__":
    sys.exit(bool(main()))
