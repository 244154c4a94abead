"""Runs and commands that are killed at each point of writing in turn: every file, before and after
its rename.

    python -m benchmarks.torture.points                  about 25 minutes on 2 quiet cores
    python -m benchmarks.torture.points --every 20       each 20th point
    python -m benchmarks.torture.points --write          also into benchmarks/results/torture.md

An undisturbed run lists its points (``write_points.py``). Then a new run is killed at each of them,
resumed, and compared with the undisturbed one. A command, such as ``export``, is given again. Of a
file that is written many times, the first and the last time are taken.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from benchmarks.torture.cases import CACHED, DUAL, LONGEST, Case, differences, half_written, printed
from benchmarks.torture.commands import COMMANDS, Command, make_inputs
from benchmarks.torture.forked import wait_for_all
from benchmarks.torture.tool import minutes_since, parser_of, show
from benchmarks.torture.write_points import (
    KINDS,
    RECORD,
    Point,
    WritePoints,
    first_and_last,
    read_points,
)

TABLE = "Kills at each point of writing"
SHORT = ("trainer.max_epochs=3", "teacher.trainer.max_epochs=2")
MORE = ("logger=csv", "evaluation.plots=true")
CASES = {
    case.name: case
    for case in (
        Case("run with teacher and cache", (*DUAL, *SHORT, *CACHED, *MORE), 0, trains=True),
        Case("run with a stage", ("method=self_supervision", *SHORT), 0),
        Case("job of a sweep", (*DUAL, *SHORT, "logger=csv"), 0, kind="job"),
        Case("sweep of 2 jobs", (*DUAL, *SHORT, "seed=0,1"), 0, kind="sweep"),
    )
} | COMMANDS


@dataclass(frozen=True)
class Death:
    """What a kill at a point did.

    Attributes:
        case: that was run.
        point: at which it was killed.
        fault: what was wrong in the end; None: nothing.
    """

    case: str
    point: Point
    fault: str | None


def listed(case: Case, root: Path) -> tuple[list[Point], dict[str, Any]]:
    """The points of an undisturbed run at which it is killed, and what it ends with."""
    if isinstance(case, Command):
        make_inputs(root)
    elif not case.trains:
        run_through(case, case.folder(root, "first"), root)  # trains the shared teacher
    folder = case.folder(root, "undisturbed")
    fault, record = run_through(case, folder, root), folder / RECORD
    if fault is not None:
        raise SystemExit(f"{case.name} fails undisturbed ({fault}):\n{printed(folder)}")
    return first_and_last(read_points(record)), case.outcome(folder)


def run_through(case: Case, folder: Path, root: Path, victim: Point | None = None) -> str | None:
    """Runs or resumes a case. Returns what went wrong; a wanted death is nothing wrong."""
    folder.mkdir(exist_ok=True)
    watch = WritePoints(folder, folder / RECORD, victim)
    (process,) = case.start(folder, root / "teachers", watch)
    if not wait_for_all([process], LONGEST):
        return "hangs"
    if victim is not None:
        points = read_points(folder / RECORD) if (folder / RECORD).exists() else []
        came = process.exitcode != 0 and victim in points
        return None if came else "does not come to this point"
    return f"exit code {process.exitcode}" if process.exitcode else None


def killed_at(case: Case, point: Point, folder: Path, root: Path, expected: dict) -> Death:
    """Kills a new run at a point, resumes it and compares it."""
    fault = run_through(case, folder, root, point) or run_through(case, folder, root)
    if fault is None and (differing := differences(case.outcome(folder), expected)):
        fault = f"not equal: {', '.join(differing)}"
    if fault is None and (left := half_written(folder)):
        fault = f"left: {', '.join(left)}"
    print(f"{case.name}: {point}: {fault or 'equal'}", file=sys.stderr, flush=True)
    if fault is None:
        shutil.rmtree(folder)
    else:
        print(printed(folder)[-2000:], file=sys.stderr, flush=True)
    return Death(case.name, point, fault)


def deaths(cases: Sequence[Case], every: int, root: Path, workers: int) -> Iterator[Death]:
    (root / "teachers").mkdir()
    for case in cases:
        points, expected = listed(case, root)
        chosen = points[::every]
        folders = [case.folder(root, str(number)) for number in range(len(chosen))]
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(
                killed_at, repeat(case), chosen, folders, repeat(root), repeat(expected)
            )


def table(found: Sequence[Death]) -> Iterator[str]:
    """The lines of the table: a row per kind of point, a column per case."""
    names = list(dict.fromkeys(death.case for death in found))
    yield f"| killed at | what is then on the disk | {' | '.join(names)} | survived | lost |"
    yield f"|---|---|{'---:|' * (len(names) + 2)}"
    for kind in [*KINDS, None]:
        rows = [death for death in found if kind in (death.point.kind, None)]
        counts = [sum(death.case == name for death in rows) for name in names]
        lost = sum(death.fault is not None for death in rows)
        numbers = " | ".join(map(str, [*counts, len(rows) - lost, lost]))
        yield f"| {kind or 'all'} | {KINDS.get(kind, '')} | {numbers} |"


def main(words: Sequence[str] | None = None) -> int:
    """The command line. Returns the number of points at which something was lost."""
    words = sys.argv[1:] if words is None else words
    parser = parser_of("points", __doc__)
    parser.add_argument("--every", type=int, default=1, help="take each n-th point")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at the same time")
    arguments = parser.parse_args(words)
    root, start = Path(tempfile.mkdtemp(prefix="points-")), time.perf_counter()
    cases = [CASES[name] for name in arguments.cases]
    found = list(deaths(cases, arguments.every, root, arguments.workers))
    lost = [f"{one.case}, {one.point}: {one.fault}" for one in found if one.fault is not None]
    some = "" if arguments.cases == list(CASES) else f": {', '.join(arguments.cases)}"
    end = minutes_since(start)
    show("points", f"{TABLE}{some}", words, table(found), end, lost=lost, write=arguments.write)
    if not lost:
        shutil.rmtree(root)
    return len(lost)


if __name__ == "__main__":
    sys.exit(bool(main()))
