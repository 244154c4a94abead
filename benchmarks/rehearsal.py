"""The study of ImageNet-100 from its files to its report, rehearsed on made-up files.

    python -m benchmarks.rehearsal
    python -m benchmarks.rehearsal --write      also into benchmarks/results/rehearsal.md

The tree has the layout of ImageNet and the 100 classes of CMC's list, with 20 training images and 5
others of real size for each (crops of photographs, 500 x 375 and 375 x 500 pixels). Then follow the
commands that one types for the real data: ``prepare``, ``--plan``, the sweep with its ten rows and
two seeds, its report as a page. So that a CPU can do it, nets get 32 px and train for one epoch,
and the teacher is trained on the tree, because its weights cannot always be downloaded. What the
numbers of such a study are worth is nothing: this shows that the chain holds, how long each part
takes, and how near the plan comes to the time that the sweep then takes.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.loading import write_photos
from benchmarks.report import Report
from kd_lightning.data.imagenet100 import LISTS
from kd_lightning.records.jobs import State, jobs_of

TRAIN, TEST = 20, 5  # images of a class
SMALL = (
    *("data.image_size=32", "data.batch_size=64", "teacher.batch_size=64", "data.num_workers=0"),
    *("trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "teacher.source=train"),
    *("teacher.check=warn", "method.teacher.weights=none", "seed=0,1", "hardware=cpu"),
    *("threads=1", "logger=none"),
)


def write_tree(root: Path, classes: Sequence[str], train: int = TRAIN, test: int = TEST) -> None:
    """Writes ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``, as ImageNet has them."""
    for seed, (part, count) in enumerate((("train", train), ("val", test))):
        write_photos([root / part / name for name in classes], count, seed, ".JPEG")


def run(*words: str, cwd: Path) -> tuple[str, float]:
    """What a command printed, and its seconds.

    Raises:
        SystemExit: it failed.
    """
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout, time.monotonic() - start


def planned_seconds(plan: str) -> float:
    """The time of all runs, one after another, that ``--plan`` printed."""
    found = re.search(r"Together ([\d:.]+)( s)?, one run after another", plan)
    if found is None:
        raise SystemExit(f"the plan says no time:\n{plan}")
    seconds = 0.0
    for part in found[1].split(":"):  # such as 12.5 s, 17:10 or 1:02:03
        seconds = 60 * seconds + float(part)
    return seconds


def rehearse(work: Path, classes: Sequence[str], small: Sequence[str] = SMALL) -> Iterator[str]:
    """Runs the whole chain in a new folder; yields the rows of a table.

    Raises:
        SystemExit: a command or a job of the sweep failed.
    """
    tree, prepared, sweep = work / "imagenet", work / "prepared", work / "sweep"
    page = work / "report.html"
    of_tree = ("data=imagenet100", f"data.root={tree}")
    from_prepared = ("data=prepared", f"data.root={prepared}")
    of_sweep = ("kd_lightning.run", "-m", "sweep=imagenet100_cmc", *small, "recipe=imagenet100")

    start = time.monotonic()
    write_tree(tree, classes)
    yield row("the tree", f"{len(classes)} classes", time.monotonic() - start)
    _, taken = run("kd_lightning.prepare", *of_tree, f"out={prepared}", cwd=work)
    yield row("`prepare`", "every image decoded once", taken)
    planned = 0.0
    for title, data in (("from the tree", of_tree), ("prepared", from_prepared)):
        plan, taken = run(*of_sweep, "--plan", *data, cwd=work)
        planned = planned_seconds(plan)
        yield row(f"`--plan`, {title}", f"{planned:.0f} s for all runs", taken)
    one_by_one = ("launcher.workers=1", f"sweep.dir={sweep}")
    _, taken = run(*of_sweep, *from_prepared, *one_by_one, cwd=work)
    jobs = jobs_of(sweep)
    if not all(job.state() == State.DONE for job in jobs):
        raise SystemExit(f"{sweep} has jobs that are not done")
    share = f"{len(jobs)} jobs, {taken / planned:.2f} of the planned time"
    yield row("the sweep, prepared", share, taken)
    _, taken = run("kd_lightning.report", str(sweep), "--html", str(page), cwd=work)
    yield row("`report`", f"a page of {page.stat().st_size / 1e6:.1f} MB", taken)


def row(part: str, what: str, seconds: float) -> str:
    return f"| {part} | {what} | {seconds:.0f} s |"


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rehearsal", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    arguments = parser.parse_args(words)
    command = sys.argv[1:] if words is None else words
    report = Report("rehearsal", "The study of ImageNet-100, rehearsed on made-up files", command)
    report.add(f"\n{(__doc__ or '').split(chr(10) * 2)[2]}\n")
    report.add("| part | | time |\n|---|---|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for line in rehearse(Path(folder), (LISTS / "cmc.txt").read_text().split()):
            report.add(line)
    if arguments.write:
        report.write()


if __name__ == "__main__":
    main()
