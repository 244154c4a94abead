"""What the tools share that try faults on purpose: their command lines and their tables."""

import argparse
import time
from collections.abc import Iterable, Sequence

from benchmarks.report import Report

TITLE = "What kills, faults and random input do"


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m benchmarks.torture.<name>``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.torture.{name}", description=description
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--write", action="store_true", help="also into benchmarks/results")
    return parser


def minutes_since(start: float) -> str:
    """The time since a value of ``time.perf_counter``."""
    return f"{(time.perf_counter() - start) / 60:.0f} minutes."


def show(
    name: str,
    title: str,
    words: Sequence[str],
    lines: Iterable[str],
    end: str,
    *,
    lost: Sequence[str] = (),
    write: bool,
) -> None:
    """Prints the table of a tool.

    Args:
        name: of the tool.
        title: of the table.
        words: of the command line.
        lines: of the table.
        end: the sentence under it.
        lost: what was lost, one line each.
        write: also write it into benchmarks/results.
    """
    report = Report(f"torture.{name}", TITLE, words)
    report.add(f"\n## {title}\n")
    for line in (*lines, f"\n{end}", *(f"- lost: {one}" for one in lost)):
        report.add(line)
    if write:
        report.write([title])
