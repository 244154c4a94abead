"""Where the time of the demo goes, from the command to its last file: every second by its name.

    python -m benchmarks.startup                  a demo of one epoch; two minutes
    python -m benchmarks.startup --whole          the demo as it is
    python -m benchmarks.startup --write          also into benchmarks/results/startup.md

Real processes: one with ``-X importtime``, whose times are summed by the package that spends them;
demos that note when they do what (``benchmarks/watched.py``); and pairs of a run that ends with its
first training step and a process that imports torch and builds the same nets, which is the least
that any run needs; neither of these two waits for its interpreter to tidy up.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from benchmarks.paired import ratio
from benchmarks.rows import HEAD, TOO_NOISY, line
from benchmarks.watched import STAGES
from benchmarks.written import Report
from kd_lightning.config.command_line import compose
from kd_lightning.running.build import build_data

ROOT = Path(__file__).parent.parent
DEMO = ("experiment=demo",)
SHORT = ("trainer.max_epochs=1", "teacher.trainer.max_epochs=1")
SHOWN = 0.01  # share of the import from which on a package is named
NETS = """
import json, os, sys, torch
from importlib import import_module
for target, given in json.loads(sys.argv[1]):
    module, name = target.rsplit(".", 1)
    getattr(import_module(module), name)(**given)
os._exit(0)
"""


def imports(module: str) -> Iterator[str]:
    """The lines of a table: what importing a module takes, by package."""
    own, brought = by_package(python("-X", "importtime", "-c", f"import {module}"))
    total = sum(own.values())
    yield (
        f"`import {module}`: {total / 1e6:.2f} s by `-X importtime`, which itself takes some, by "
        "the package that spends them; brought by: the module that imported it first. What is "
        "loaded "
        "by name (importlib) counts to who loads it.\n"
    )
    yield "| package | ms | share | brought by |\n|---|---:|---:|---|"
    rest = 0
    for package, took in own.most_common():
        if took < SHOWN * total:
            rest += took
        else:
            by = brought.get(package, "")
            yield f"| {package} | {took / 1e3:.0f} | {took / total:.0%} | {by} |"
    yield f"| all others | {rest / 1e3:.0f} | {rest / total:.0%} | |"


def by_package(said: str) -> tuple[Counter[str], dict[str, str]]:
    """Microseconds by package, and the module of another package that imported each, from what
    ``-X importtime`` says: a line a module, after those that it imports, which are indented more.
    """
    own: Counter[str] = Counter()
    brought: dict[str, str] = {}
    waiting: dict[int, list[str]] = defaultdict(list)  # depth -> packages imported by who comes
    for said_line in said.splitlines():
        cells = said_line.removeprefix("import time:").split("|")
        if len(cells) != 3 or not cells[0].strip().isdigit():
            continue
        name = cells[2].strip()
        depth, package = (len(cells[2]) - len(cells[2].lstrip())) // 2, name.split(".")[0]
        own[package] += int(cells[0])
        for inner in waiting.pop(depth + 1, []):
            if inner == package:
                waiting[depth].append(inner)  # its own module did: who did that comes yet
            else:
                brought[inner] = name
        if name == package:
            waiting[depth].append(package)
    return own, brought


def demo(words: Sequence[str], title: str) -> Iterator[str]:
    """The lines of a table: the stages of one run, and the seconds that are in none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "notes.json"
        begun = time.time()
        python("-m", "benchmarks.watched", str(file), *words)
        ended = time.time()
        found = json.loads(file.read_text())
    yield f"{title}: {ended - begun:.1f} s\n"
    yield "| | s |\n|---|---:|"
    for name, took in seconds_of(begun, found["notes"], found["stages"], ended):
        yield f"| {name} | {took:.2f} |"


def seconds_of(
    begun: float, notes: Mapping[str, float], stages: Mapping[str, float], ended: float
) -> list[tuple[str, float]]:
    """All seconds of a watched run, each under one name."""
    inside = notes["over"] - notes["run"]
    rows = [
        ("the interpreter starts", notes["python"] - begun),
        ("imports", notes["imported"] - notes["python"]),
        ("composed", notes["run"] - notes["imported"]),
        *((STAGES[name], took) for name, took in stages.items()),
        ("else in the run", inside - sum(stages.values())),
        ("the interpreter ends", ended - notes["over"]),
    ]
    return [(name, took) for name, took in rows if took >= 0.005]


def to_first_step(pairs: int) -> Iterator[str]:
    """The lines of a table: the ratio that a person waits by."""
    nets = json.dumps(nets_of(DEMO))

    def first() -> float:
        with tempfile.TemporaryDirectory() as folder:
            words = ["benchmarks.watched", "first-step", *DEMO, f"outputs={folder}"]
            return process("-m", *words)

    def least() -> float:
        return process("-c", NETS, nets)

    first(), least()  # files are in memory from now on
    yield HEAD[0]
    yield HEAD[1]
    control = ratio([(least(), least(), least(), least()) for _ in range(pairs)])
    yield line("control, the same process twice", control)
    found = [(first(), least(), least(), first()) for _ in range(pairs)]
    yield line("to the end of the first training step / import torch, build the nets", ratio(found))
    yield ""
    shortest = [min(min(each[i], each[j]) for each in found) for i, j in ((0, 3), (1, 2))]
    yield f"The shortest: {shortest[0]:.2f} s and {shortest[1]:.2f} s."
    if not control.is_one:
        yield f"\n{TOO_NOISY}"


def process(*words: str) -> float:
    """Seconds of a Python process."""
    begun = time.perf_counter()
    python(*words)
    return time.perf_counter() - begun


def python(*words: str) -> str:
    """What a Python process says on stderr."""
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr


def nets_of(words: Sequence[str]) -> list[tuple[str, dict]]:
    """Function and arguments of every net of a run."""
    cfg = compose(words)
    build_data(cfg)
    nets = OmegaConf.to_container(cfg.method, resolve=True)
    configs = [nets["teacher"], *nets["students"].values()]
    return [(config.pop("_target_"), config) for config in configs]


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--whole", action="store_true", help="the demo in all its epochs")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    given = parser.parse_args(words)
    report = Report("startup", "Where the time of the demo goes", words)
    report.say("\n## To the first step\n")
    for shown in to_first_step(given.pairs):
        report.say(shown)
    report.say("\n## Imports\n")
    for shown in imports("kd_lightning.run"):
        report.say(shown)
    report.say("\n## The demo")
    with tempfile.TemporaryDirectory() as folder:
        asked = [*DEMO, *(() if given.whole else SHORT), f"outputs={folder}"]
        for title in ("Teacher and baseline trained", "Teacher and baseline found"):
            report.say()
            for shown in demo(asked, title):
                report.say(shown)
    if given.write:
        report.write()


if __name__ == "__main__":
    main()
