"""The time of a sweep compared with single runs, and the effect of SIGKILL at random moments.

    python -m benchmarks.sweeps                       the 48 jobs of docs/sweeps.md
    python -m benchmarks.sweeps --seed 1 method.temperature=1,8 seed=0,1

First some single runs, then an undisturbed sweep, then the same sweep killed three times and
resumed. All numbers of the two sweeps must be the same.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kd_lightning.records.jobs import Job, jobs_of

WORDS = (
    "method.temperature=1,2,4,8",
    "method.confidence_threshold=0,0.25,0.5,0.75",
    "seed=0,1,2",
)
KILLS = 3


def command(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"kd_lightning.{module}", *words]


def timed(words: Sequence[str], log: Path) -> float:
    """The seconds that a command takes; its output goes to ``log``."""
    start = time.perf_counter()
    with log.open("ab") as file:
        subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=True)
    return time.perf_counter() - start


def killed(
    words: list[str], directory: Path, seconds: float, rng: random.Random, log: Path
) -> Iterator[Any]:
    """Runs a sweep that is killed at random moments and resumed.

    Yields the moment and the states of the jobs at each kill, and in the end the total seconds.

    Args:
        words: the command that starts the sweep.
        seconds: that an undisturbed sweep takes.
    """
    start = time.perf_counter()
    for _ in range(KILLS):
        with log.open("ab") as file:
            sweep = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        while not (directory / "sweep.yaml").exists():
            time.sleep(0.05)
        moment = rng.uniform(1, seconds / KILLS)
        time.sleep(moment)
        states = Counter(str(job.state()) for job in jobs_of(directory))
        phases = [str(job.progress().get("phase")) for job in jobs_of(directory) if job.is_locked()]
        sweep.send_signal(signal.SIGKILL)
        sweep.wait()
        shown = ", ".join(f"{count} {state}" for state, count in states.items())
        yield f"after {moment:.0f} s: {shown}", phases
        words = command("sweep", str(directory), "--resume")
    timed(words, log)
    yield time.perf_counter() - start


def results_of(job: Job) -> Any:
    """All numbers of a job, without the throughput and the paths, which differ between runs."""

    def stripped(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: stripped(v) for k, v in value.items() if k not in ("throughput", "origin")}

    return stripped(job.metrics())


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("words", nargs="*", default=list(WORDS), help="the overrides of the sweep")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    log = folder / "log.txt"
    say(f"`python -m kd_lightning.run -m {' '.join(arguments.words)}`, {os.cpu_count()} cores\n")
    first = [word.split(",")[0] for word in arguments.words]
    shared = f"outputs={folder}/outputs"
    timed(command("run", *first, shared), log)  # trains the teacher that the others reuse
    single = [timed(command("run", *first, shared), log) for _ in range(3)]
    say(f"- a single run with a trained teacher: {', '.join(f'{s:.1f} s' for s in single)}")

    whole = folder / "undisturbed"
    seconds = timed(command("run", "-m", *arguments.words, shared, f"sweep.dir={whole}"), log)
    jobs = jobs_of(whole)
    own = [job.progress()["time"] - job.progress()["begun"] for job in jobs]
    say(f"- an undisturbed sweep of {len(jobs)} jobs with a trained teacher: {seconds:.0f} s")
    say(f"- that is {seconds / len(jobs):.1f} s per job; time of each job, several at once:")
    say(f"  {min(own):.1f} to {max(own):.1f} s, median {statistics.median(own):.1f} s")

    directory = folder / "killed"
    start = command(
        "run", "-m", *arguments.words, f"outputs={folder}/other", f"sweep.dir={directory}"
    )
    *kills, total = killed(start, directory, seconds, random.Random(arguments.seed), log)
    for moment, phases in kills:
        say(f"- SIGKILL {moment}; running at that moment: {'; '.join(phases) or 'nothing'}")
    same = [results_of(a) == results_of(b) for a, b in zip(jobs, jobs_of(directory), strict=True)]
    say(f"- the killed sweep, including its teacher: {total:.0f} s in total")
    say(f"- {sum(same)} of {len(same)} jobs equal the undisturbed ones bit for bit\n")
    say((directory / "table.md").read_text())
    say(f"Records: {folder}")
    if not all(same):
        sys.exit(1)


if __name__ == "__main__":
    main()
