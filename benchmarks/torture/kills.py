"""Runs and sweeps that are killed at random moments and resumed until they are done.

    python -m benchmarks.torture.kills --kills 200 --seed 0      about 20 minutes on 2 quiet cores
    python -m benchmarks.torture.kills --cases kd SWA --kills 9  some of the cases
    python -m benchmarks.torture.kills --write                   also into results/torture.md

A killed run must end with the numbers, rows and weights of an undisturbed one, bit for bit. The
signal is SIGKILL to one process, as when the memory is full; SIGKILL to all processes, as when a
machine goes down; or SIGTERM, as schedulers send it. After SIGTERM nothing may look like a bug.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from benchmarks.torture.cases import CASES, LONGEST, RUN, Case, differences, half_written, printed
from benchmarks.torture.forked import kill_session, wait_for_all
from benchmarks.torture.tool import minutes_since, parser_of, show
from kd_lightning.records.jobs import jobs_of

TABLE = "Kills at random moments"
MOST_KILLS = 4  # of one run
MOST_STARTS = 3 * MOST_KILLS  # a sweep whose job was killed is started once more
SIGNALS = ("SIGKILL", "SIGKILL to all", "SIGTERM")
MOMENTS = ("before its first checkpoint", "while it trains", "after its training")


@dataclass
class Trial:
    """A run that was killed and resumed until it was done.

    Attributes:
        case: that was run.
        kills: the signal and the moment of each.
        fault: what was wrong in the end; None: nothing.
        log: what the run printed, if something was wrong.
    """

    case: str
    kills: list[tuple[str, str]] = field(default_factory=list)
    fault: str | None = None
    log: str = ""


@dataclass(frozen=True)
class Undisturbed:
    """What a case must end with, and the seconds that it takes."""

    case: Case
    outcome: dict[str, Any]
    seconds: float


def undisturbed(case: Case, root: Path) -> Undisturbed:
    """Runs a case without a kill. Its teacher is in the shared store before, if it must be."""
    folder = case.folder(root, "undisturbed")
    seconds = 0.0
    for _ in range(1 if case.trains else 2):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        start = time.perf_counter()
        processes = case.start(folder, root / "teachers")
        wait_for_all(processes, LONGEST)
        seconds = time.perf_counter() - start
        if any(process.exitcode for process in processes):
            raise SystemExit(f"{case.name} fails undisturbed:\n{printed(folder)}")
    return Undisturbed(case, case.outcome(folder), seconds)


def tried(expected: Undisturbed, folder: Path, rng: random.Random, most: int) -> Trial:
    """Kills a run at most ``most`` times, and resumes it until it is done."""
    case, trial = expected.case, Trial(expected.case.name)
    folder.mkdir()
    for _ in range(MOST_STARTS):
        processes = case.start(folder, folder.parent / "teachers")
        if len(trial.kills) < most and killed(expected, trial, processes, folder, rng):
            is_over = False
        else:
            trial.fault = trial.fault or fault_at_end(expected, processes, folder)
            is_over = not any(process.exitcode for process in processes)
        if is_over or trial.fault is not None:
            break
    else:
        trial.fault = f"is not done after {MOST_STARTS} starts"
    if trial.fault is not None:
        trial.log = printed(folder)[-3000:]
    return trial


def killed(
    expected: Undisturbed,
    trial: Trial,
    processes: Sequence[ForkServerProcess],
    folder: Path,
    rng: random.Random,
) -> bool:
    """Kills at a random moment. Returns whether the run must be started again."""
    name, victim = rng.choice(SIGNALS), rng.choice(processes)
    victim.join(rng.uniform(0, expected.seconds))
    if any(process.exitcode is not None for process in processes):
        return False
    when, tracebacks = moment(expected, folder), printed(folder).count("Traceback")
    if expected.case.kind == "sweep" and rng.random() < 0.3 and kill_a_job(folder):
        trial.kills.append(("SIGKILL", when))
        return False  # the sweep goes on, and says that a job has failed
    if any(process.exitcode is not None for process in processes):
        return False  # it ended while the files were read
    trial.kills.append((name, when))
    if name == "SIGKILL to all":
        for process in processes:
            kill_session(process)
        return True
    if name == "SIGTERM":  # torchrun and SLURM send it to all ranks at once
        terminate(processes)
    else:
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
    end_as_torchrun_does(processes, victim)
    if victim.exitcode is None:
        trial.fault = f"hangs after {name}"
    if name == "SIGTERM" and printed(folder).count("Traceback") > tracebacks:
        trial.fault = "a traceback after SIGTERM"
    wait_for_all(processes, 0)
    return True


def end_as_torchrun_does(processes: Sequence[ForkServerProcess], first: ForkServerProcess) -> None:
    """Ends the other ranks, and waits for all."""
    first.join(1 if len(processes) > 1 else LONGEST)
    if first.exitcode is not None:
        terminate(processes)
    for process in processes:
        process.join(30)
        if process is not first:
            kill_session(process)


def terminate(processes: Sequence[ForkServerProcess]) -> None:
    for process in processes:
        if process.exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)


def kill_a_job(folder: Path) -> bool:
    """Kills the process of a job of a sweep. Returns whether one was running."""
    for job in jobs_of(folder / RUN):
        if (pid := holder_of(job.directory / ".lock")) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return True
    return False


def holder_of(lock: Path) -> int | None:
    """The process that holds a lock, from Linux's table."""
    with suppress(FileNotFoundError):
        node = os.stat(lock).st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[5].endswith(f":{node}") and "->" not in words:
                return int(words[4])
    return None


def moment(expected: Undisturbed, folder: Path) -> str:
    """Which of ``MOMENTS`` it is now, by the files that are there."""
    directory = folder / RUN
    if expected.case.kind == "sweep":
        jobs = jobs_of(directory)
        done = sum(job.is_over() for job in jobs)
        return MOMENTS[0 if not done else 2 if done == len(jobs) else 1]
    rows = directory / "epochs.csv"
    if not rows.exists():
        return MOMENTS[0]
    is_trained = len(rows.read_text().splitlines()) == len(expected.outcome["epochs.csv"])
    return MOMENTS[2 if is_trained else 1]


def fault_at_end(
    expected: Undisturbed, processes: Sequence[ForkServerProcess], folder: Path
) -> str | None:
    """What is wrong with a run that was not killed; None: nothing, or it must be resumed again."""
    case = expected.case
    if not wait_for_all(processes, LONGEST):
        return "hangs"
    codes = [process.exitcode for process in processes]
    if case.kind == "sweep" and codes == [1] and "jobs failed" in printed(folder):
        return None
    if any(codes):
        return f"exit code {codes[0] or codes[-1]} of a resumed run"
    if differing := differences(case.outcome(folder), expected.outcome):
        return f"not equal: {', '.join(differing)}"
    if left := half_written(folder):
        return f"left: {', '.join(left)}"
    return None


def trials(
    cases: Sequence[Case], kills: int, seed: int, root: Path, workers: int
) -> Iterator[Trial]:
    """Runs of each case until it has its share of the kills."""
    (root / "teachers").mkdir(exist_ok=True)
    total = sum(case.share for case in cases)

    def of_case(case: Case) -> Iterator[Trial]:
        left, number = max(1, round(kills * case.share / total)), 0
        expected = undisturbed(case, root)
        while left > 0:
            rng = random.Random(f"{seed} {case.name} {number}")
            folder = case.folder(root, str(number))
            trial = tried(expected, folder, rng, min(left, rng.randint(1, MOST_KILLS)))
            left, number = left - len(trial.kills), number + 1
            if trial.fault is None:
                shutil.rmtree(folder)
            yield trial

    with ThreadPoolExecutor(workers) as pool:
        for of_one in pool.map(lambda case: list(shown(of_case(case))), cases):
            yield from of_one


def shown(found: Iterator[Trial]) -> Iterator[Trial]:
    """The same trials; each is told to the person when it ends."""
    for trial in found:
        kills = "; ".join(f"{name} {when}" for name, when in trial.kills) or "no kill"
        print(f"{trial.case}: {kills}: {trial.fault or 'equal'}", file=sys.stderr, flush=True)
        if trial.log:
            print(trial.log, file=sys.stderr, flush=True)
        yield trial


def table(found: Sequence[Trial]) -> Iterator[str]:
    """The lines of the table: a row per case, and all of them."""
    heads = ("killed", "runs", *SIGNALS, *MOMENTS, "survived", "lost")
    yield f"| {' | '.join(heads)} |"
    yield f"|---{'|---:' * (len(heads) - 1)}|"
    names = list(dict.fromkeys(trial.case for trial in found))
    for name, rows in [*((n, [t for t in found if t.case == n]) for n in names), ("all", found)]:
        counts = Counter(word for trial in rows for kill in trial.kills for word in kill)
        lost = [len(trial.kills) for trial in rows if trial.fault is not None]
        survived = sum(len(trial.kills) for trial in rows) - sum(lost)
        numbers = [len(rows), *(counts[word] for word in (*SIGNALS, *MOMENTS)), survived, sum(lost)]
        yield f"| {name} | {' | '.join(map(str, numbers))} |"


def main(words: Sequence[str] | None = None) -> int:
    """The command line. Returns the number of runs that were lost."""
    words = sys.argv[1:] if words is None else words
    parser = parser_of("kills", __doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="cases at the same time"
    )
    arguments = parser.parse_args(words)
    root, start = Path(tempfile.mkdtemp(prefix="kills-")), time.perf_counter()
    cases = [CASES[name] for name in arguments.cases]
    found = list(trials(cases, arguments.kills, arguments.seed, root, arguments.workers))
    lost = [f"{trial.case}: {trial.fault}" for trial in found if trial.fault is not None]
    some = "" if arguments.cases == list(CASES) else f": {', '.join(arguments.cases)}"
    end = minutes_since(start)
    show("kills", f"{TABLE}{some}", words, table(found), end, lost=lost, write=arguments.write)
    if not lost:
        shutil.rmtree(root)
    return len(lost)


if __name__ == "__main__":
    sys.exit(bool(main()))
