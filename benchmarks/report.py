"""The report of a benchmark: printed line by line, and written into benchmarks/results."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from kd_lightning.base.files import write_text
from kd_lightning.running.environment import PACKAGES

HERE = Path(__file__).parent
RESULTS = HERE / "results"


class Report:
    """Prints lines and collects them. The first lines are the title, and the command, versions and
    machine that the numbers come from.

    Args:
        name: of the benchmark's module; its first part is that of the file that ``write`` makes.
        title: of the report.
        words: the arguments of the command line.
        gpu: whether the benchmark runs on a GPU.
        keep: write the file after each line, so that a benchmark that is cut off leaves its rows.

    Raises:
        SystemExit: it should run on a GPU, and there is none.
    """

    def __init__(
        self, name: str, title: str, words: Sequence[str], *, gpu: bool = False, keep: bool = False
    ) -> None:
        if gpu and not torch.cuda.is_available():
            raise SystemExit(f"benchmarks.{name} was asked to run on a GPU, and there is none")
        self.path = RESULTS / f"{name.split('.')[0]}.md"
        self.lines: list[str] = []
        self.keep = keep
        command = " ".join(["python -m", f"benchmarks.{name}", *words])
        self.made_by = f"`{command}`, {commit()}, {versions()}; {machine(gpu=gpu)}."
        self.add(f"# {title}\n")
        self.add(self.made_by)

    def add(self, line: str = "") -> None:
        self.lines.append(line)
        print(line, flush=True)
        if self.keep:
            write_text(self.path, "\n".join(self.lines) + "\n")

    def write(self, only: Sequence[str] = ()) -> None:
        """Writes the lines to the file to commit.

        Args:
            only: names of the measured tables, if not all were measured. Only these tables are
                replaced, and below each stands what made it.
        """
        text = "\n".join(self.lines) + "\n"
        if only:
            title = f"{self.lines[0]}\n"
            tables = by_table(self.path.read_text() if self.path.exists() else title)
            for name, table in by_table(text).items():
                if name:
                    tables[name] = f"{table.rstrip()}\n\nMade by {self.made_by}"
            text = "\n\n".join(table.rstrip() for table in tables.values()) + "\n"
        write_text(self.path, text)
        print(f"\nWritten: {self.path}", file=sys.stderr)


def by_table(text: str) -> dict[str, str]:
    """The parts of a report: name of a table -> its lines; "" -> the lines before all tables."""
    head, *tables = re.split(r"^(?=## )", text, flags=re.M)
    return {"": head} | {table.split("\n", 1)[0][3:]: table for table in tables}


def commit() -> str:
    """The commit of the source tree, and whether the measured files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(HERE.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "kd_lightning", "conf", "benchmarks/*.py")
        return f"commit {git('rev-parse', '--short', 'HEAD')}{' with changes' if changed else ''}"
    except (OSError, subprocess.CalledProcessError):
        return "no commit"


def versions() -> str:
    """The versions of Python and of the packages that a run records."""
    first = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    return ", ".join(first + [f"{name} {version(name)}" for name in PACKAGES if name != "torch"])


def machine(*, gpu: bool) -> str:
    """The processor (and GPU), the number of threads used, and the load at the start."""
    threads = torch.get_num_threads()
    used = f"{threads} {'thread' if threads == 1 else 'threads'}"
    load = f"load average {os.getloadavg()[0]:.1f} at the start"
    cpu = f"{processor()}, {os.cpu_count()} cores, {used}, {load}"
    return f"{torch.cuda.get_device_name()}; {cpu}" if gpu else cpu


def processor() -> str:
    """The model of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
