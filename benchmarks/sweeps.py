"""What a sweep costs beside bare runs, and what SIGKILL at random moments does to one.

    python -m benchmarks.sweeps                       the README's 48 jobs on digits
    python -m benchmarks.sweeps --seed 1 method.temperature=1,8 seed=0,1

Three sweeps' worth of work: one undisturbed, one that is killed three times and resumed, and before
them one bare run, as a person would type it. Every number of the two sweeps must be the same.
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
    """Seconds that a command takes; what it prints goes to ``log``."""
    begun = time.perf_counter()
    with log.open("ab") as file:
        subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=True)
    return time.perf_counter() - begun


def killed(
    start: list[str], directory: Path, seconds: float, luck: random.Random, log: Path
) -> Iterator[Any]:
    """Runs a sweep, killed at random moments; yields what each kill met, at last all seconds."""
    begun, words = time.perf_counter(), start
    for _ in range(KILLS):
        with log.open("ab") as file:
            sweep = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        while not (directory / "sweep.yaml").exists():
            time.sleep(0.05)
        moment = luck.uniform(1, seconds / KILLS)
        time.sleep(moment)
        states = Counter(str(job.state()) for job in jobs_of(directory))
        doing = [str(job.progress().get("phase")) for job in jobs_of(directory) if job.is_held()]
        sweep.send_signal(signal.SIGKILL)
        sweep.wait()
        shown = ", ".join(f"{count} {state}" for state, count in states.items())
        yield f"after {moment:.0f} s: {shown}", doing
        words = command("sweep", str(directory), "--resume")
    timed(words, log)
    yield time.perf_counter() - begun


def findings(job: Job) -> Any:
    """All numbers of a job, but for what no two runs share: how fast nets are, and where."""

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
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("words", nargs="*", default=list(WORDS), help="of the sweep")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp())
    log = place / "log.txt"
    say(f"`python -m kd_lightning.run -m {' '.join(given.words)}`, {os.cpu_count()} cores\n")
    first = [word.split(",")[0] for word in given.words]
    shared = f"outputs={place}/outputs"
    timed(command("run", *first, shared), log)  # trains the teacher, which the others reuse
    bare = [timed(command("run", *first, shared), log) for _ in range(3)]
    say(f"- a bare run, its teacher there already: {', '.join(f'{s:.1f} s' for s in bare)}")

    whole = place / "undisturbed"
    seconds = timed(command("run", "-m", *given.words, shared, f"sweep.dir={whole}"), log)
    jobs = jobs_of(whole)
    own = [job.progress()["time"] - job.progress()["begun"] for job in jobs]
    say(f"- an undisturbed sweep of {len(jobs)} jobs, its teacher there already: {seconds:.0f} s")
    say(f"- that is {seconds / len(jobs):.1f} s a job; each by itself, several at once:")
    say(f"  {min(own):.1f} to {max(own):.1f} s, median {statistics.median(own):.1f} s")

    directory = place / "killed"
    start = command("run", "-m", *given.words, f"outputs={place}/other", f"sweep.dir={directory}")
    *kills, total = killed(start, directory, seconds, random.Random(given.seed), log)
    for moment, doing in kills:
        say(f"- SIGKILL {moment}; at work then: {'; '.join(doing) or 'nothing'}")
    same = [findings(a) == findings(b) for a, b in zip(jobs, jobs_of(directory), strict=True)]
    say(f"- the killed sweep, its teacher included: {total:.0f} s in all")
    say(f"- {sum(same)} of {len(same)} jobs have the undisturbed numbers, to the last bit\n")
    say((directory / "table.md").read_text())
    say(f"Records: {place}")
    if not all(same):
        sys.exit(1)


if __name__ == "__main__":
    main()
