"""How the time of the demo is spent, from the command to the last file.

    python -m benchmarks.startup                  a demo of one epoch; two minutes
    python -m benchmarks.startup --whole          the full demo
    python -m benchmarks.startup --write          also into benchmarks/results/startup.md

Everything is measured on real processes:

- The time to the first training step, compared in pairs with a process that only imports torch and
  builds the same nets, which is the least that any run needs. Both exit without Python's clean-up.
- The imports, by ``-X importtime``, summed for each package.
- Demos that record the times of their stages (``benchmarks/timed_run.py``).
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

from benchmarks.paired_timing import ratio
from benchmarks.ratio_table import HEAD, TOO_NOISY, line
from benchmarks.report import Report
from benchmarks.timed_run import STAGES
from kd_lightning.config.command_line import compose
from kd_lightning.running.build import build_data

ROOT = Path(__file__).parent.parent
DEMO = ("experiment=demo", "hardware=cpu")
SHORT = ("trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "teacher.check=warn")
MIN_SHARE = 0.01  # packages with a smaller share of the import time are not listed
BUILD_NETS = """
import json, os, sys, torch
from importlib import import_module
for target, arguments in json.loads(sys.argv[1]):
    module, name = target.rsplit(".", 1)
    getattr(import_module(module), name)(**arguments)
os._exit(0)
"""


def imports(module: str) -> Iterator[str]:
    """The lines of a table: the import time of a module, for each package."""
    own, importers = by_package(python("-X", "importtime", "-c", f"import {module}"))
    total = sum(own.values())
    yield (
        f"`import {module}`: {total / 1e6:.2f} s by `-X importtime` (which adds some time itself), "
        "for each package. imported by: the module that imported the package first. A package that "
        "is loaded by name (importlib) counts as part of the package that loads it.\n"
    )
    yield "| package | ms | share | imported by |\n|---|---:|---:|---|"
    rest = 0
    for package, time_of in own.most_common():
        if time_of < MIN_SHARE * total:
            rest += time_of
        else:
            by = importers.get(package, "")
            yield f"| {package} | {time_of / 1e3:.0f} | {time_of / total:.0%} | {by} |"
    yield f"| all others | {rest / 1e3:.0f} | {rest / total:.0%} | |"


def by_package(output: str) -> tuple[Counter[str], dict[str, str]]:
    """The microseconds of each package, and the module of another package that imported it first.

    Args:
        output: of ``-X importtime``. It has a line for each module, after the lines of the modules
            that it imports, which are indented more.
    """
    own: Counter[str] = Counter()
    importers: dict[str, str] = {}
    pending: dict[int, list[str]] = defaultdict(
        list
    )  # depth -> packages whose importer comes later
    for output_line in output.splitlines():
        cells = output_line.removeprefix("import time:").split("|")
        if len(cells) != 3 or not cells[0].strip().isdigit():
            continue
        name = cells[2].strip()
        depth, package = (len(cells[2]) - len(cells[2].lstrip())) // 2, name.split(".")[0]
        own[package] += int(cells[0])
        for inner in pending.pop(depth + 1, []):
            if inner == package:
                pending[depth].append(
                    inner
                )  # imported by its own package: the importer comes later
            else:
                importers[inner] = name
        if name == package:
            pending[depth].append(package)
    return own, importers


def demo(words: Sequence[str], title: str) -> Iterator[str]:
    """The lines of a table: the stages of one run, and the time outside all stages."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        start = time.time()
        python("-m", "benchmarks.timed_run", str(file), *words)
        end = time.time()
        times = json.loads(file.read_text())
    yield f"{title}: {end - start:.1f} s\n"
    yield "| | s |\n|---|---:|"
    for name, seconds in seconds_of(start, times["moments"], times["stages"], end):
        yield f"| {name} | {seconds:.2f} |"


def seconds_of(
    start: float, moments: Mapping[str, float], stages: Mapping[str, float], end: float
) -> list[tuple[str, float]]:
    """The seconds of a timed run, divided so that each second is counted once.

    Args:
        start: when the process was started.
        moments: name -> time, and stages: name -> seconds, from ``timed_run``.
        end: when the process had ended.
    """
    in_run = moments["over"] - moments["run"]
    rows = [
        ("start of the interpreter", moments["python"] - start),
        ("imports", moments["imported"] - moments["python"]),
        ("composing the configuration", moments["run"] - moments["imported"]),
        *((STAGES[name], seconds) for name, seconds in stages.items()),
        ("rest of the run", in_run - sum(stages.values())),
        ("end of the interpreter", end - moments["over"]),
    ]
    return [(name, seconds) for name, seconds in rows if seconds >= 0.005]


def to_first_step(pairs: int) -> Iterator[str]:
    """The lines of a table: the time to the first training step, over the least possible time."""
    nets = json.dumps(nets_of(DEMO))

    def first() -> float:
        with tempfile.TemporaryDirectory() as folder:
            words = ["benchmarks.timed_run", "first-step", *DEMO, f"outputs={folder}"]
            return process("-m", *words)

    def least() -> float:
        return process("-c", BUILD_NETS, nets)

    first(), least()  # warm-up: afterwards all files are in the file cache
    yield HEAD[0]
    yield HEAD[1]
    control = ratio([(least(), least(), least(), least()) for _ in range(pairs)])
    yield line("control, the same process twice", control)
    blocks = [(first(), least(), least(), first()) for _ in range(pairs)]
    title = "to the end of the first training step / import torch, build the nets"
    yield line(title, ratio(blocks))
    yield ""
    shortest = [min(min(block[i], block[j]) for block in blocks) for i, j in ((0, 3), (1, 2))]
    yield f"The shortest times: {shortest[0]:.2f} s and {shortest[1]:.2f} s."
    if not control.contains_one:
        yield f"\n{TOO_NOISY}"


def process(*words: str) -> float:
    """The seconds that a Python process takes."""
    start = time.perf_counter()
    python(*words)
    return time.perf_counter() - start


def python(*words: str) -> str:
    """Runs a Python process, and returns its stderr."""
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr


def nets_of(words: Sequence[str]) -> list[tuple[str, dict]]:
    """The function and arguments of every net of a run."""
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
    parser.add_argument("--pairs", type=int, default=7, help="of processes to the first step")
    parser.add_argument("--whole", action="store_true", help="the demo with all its epochs")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    arguments = parser.parse_args(words)
    report = Report("startup", "How the time of the demo is spent", words)
    report.add("\n## To the first step\n")
    for text in to_first_step(arguments.pairs):
        report.add(text)
    report.add("\n## Imports\n")
    for text in imports("kd_lightning.running.run"):
        report.add(text)
    report.add("\n## The demo, with one epoch of each training")
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*DEMO, *(() if arguments.whole else SHORT), f"outputs={folder}"]
        for title in ("Teacher and baseline are trained", "Teacher and baseline are reused"):
            report.add()
            for text in demo(overrides, title):
                report.add(text)
    if arguments.write:
        report.write()


if __name__ == "__main__":
    main()
