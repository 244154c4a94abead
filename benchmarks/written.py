"""What a benchmark says of itself: printed line by line, and written into benchmarks/results."""

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
    """Prints lines and keeps them; its first ones say what it is, what made it and where.

    Args:
        name: of the module, and of the file that ``write`` makes.
        title: what the numbers are of.
        words: of the command line, as they were given.
        gpu: whether it was measured on one.

    Raises:
        SystemExit: it was to be, and there is none.
    """

    def __init__(self, name: str, title: str, words: Sequence[str], *, gpu: bool = False) -> None:
        if gpu and not torch.cuda.is_available():
            raise SystemExit(f"benchmarks.{name} was asked to run on a GPU, and there is none")
        self.path = RESULTS / f"{name}.md"
        self.lines: list[str] = []
        command = " ".join(["python -m", f"benchmarks.{name}", *words])
        self.made_by = f"`{command}`, {commit()}, {versions()}; {machine(gpu=gpu)}."
        self.say(f"# {title}\n")
        self.say(self.made_by)

    def say(self, line: str = "") -> None:
        self.lines.append(line)
        print(line, flush=True)

    def write(self, only: Sequence[str] = ()) -> None:
        """Puts the lines where they can be committed.

        Args:
            only: the tables that were asked for, if not all: in a file that is there they alone are
                replaced, and each says what made it.
        """
        text = "\n".join(self.lines) + "\n"
        if only and self.path.exists():
            tables = by_table(self.path.read_text())
            for name, table in by_table(text).items():
                if name:
                    tables[name] = f"{table.rstrip()}\n\nMade by {self.made_by}\n\n"
            text = "".join(tables.values()).rstrip() + "\n"
        write_text(self.path, text)
        print(f"\nWritten: {self.path}", file=sys.stderr)


def by_table(text: str) -> dict[str, str]:
    """The parts of a report: a table's name -> its lines, and "" -> what stands before them."""
    head, *tables = re.split(r"^(?=## )", text, flags=re.M)
    return {"": head} | {table.split("\n", 1)[0][3:]: table for table in tables}


def commit() -> str:
    """Of the source tree, and whether what is measured there differs from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(HERE.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "kd_lightning", "conf", "benchmarks/*.py")
        return f"commit {git('rev-parse', '--short', 'HEAD')}{' with changes' if changed else ''}"
    except (OSError, subprocess.CalledProcessError):
        return "no commit"


def versions() -> str:
    found = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    return ", ".join(found + [f"{name} {version(name)}" for name in PACKAGES if name != "torch"])


def machine(*, gpu: bool) -> str:
    """The processor, how much of it was used, and how busy it was."""
    threads = torch.get_num_threads()
    used = f"{threads} {'thread' if threads == 1 else 'threads'}"
    busy = f"load average {os.getloadavg()[0]:.1f} at the start"
    found = f"{processor()}, {os.cpu_count()} cores, {used}, {busy}"
    return f"{torch.cuda.get_device_name()}; {found}" if gpu else found


def processor() -> str:
    """Its model."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
