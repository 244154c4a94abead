"""Prints and writes the tables of sweeps, from their records.

    python -m kd_lightning.report outputs/sweeps/2026-11-22_10-00-00_grid_1f2e
    python -m kd_lightning.report <sweep> <sweep> --columns val/accuracy 'test/*/ece' --out both

A sweep's tables go into its own directory; those of several, or of ordinary runs, are only printed
unless a folder is named.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kd_lightning import reports
from kd_lightning.config.command_line import console, report_errors


def parser() -> argparse.ArgumentParser:
    said = argparse.ArgumentParser(
        prog="python -m kd_lightning.report",
        description="Tables over seeds, pairs and data sets, from the records of sweeps or runs.",
        epilog="Columns: val/accuracy, or <part>/<net>/<metric>: test/a/accuracy, "
        "last/a/nll, test/ensemble/ece, 'test/*/accuracy' for all students.",
    )
    said.add_argument(
        "directories", nargs="+", help="sweeps, their packed records, or folders of runs"
    )
    said.add_argument("--columns", nargs="+", help="instead of the sweep's own")
    said.add_argument(
        "--pair",
        nargs=2,
        action="append",
        metavar=("A", "B"),
        help="test A − B over the seeds: two rows by name, or two values as key=value",
    )
    said.add_argument(
        "--out", help="write into this folder, with the records, from which it can be made again"
    )
    return said


def main(words: Sequence[str] | None = None) -> None:
    """The command line: a person's mistake is one sentence and exit code 2."""
    with report_errors():
        given = parser().parse_args(words)
        report = reports.build(given.directories, given.columns, given.pair)
        reports.print_report(report, console)
        out = given.out or report.source.home
        if out is None:
            _say("Not written: name a folder for it (--out).")
            return
        reports.write(report, out)
        _say(f"Written: {Path(out)}")


def _say(sentence: str) -> None:
    console.print(sentence, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
