"""Prints and writes the tables of sweeps and runs.

    python -m kd_lightning.report outputs/sweeps/2026-11-22_10-00-00_grid_1f2e
    python -m kd_lightning.report <sweep> <sweep> --columns val/accuracy 'test/*/ece' --out both
    python -m kd_lightning.report <run> --html report.html

The tables of one sweep are written into its directory. The tables of several sweeps, or of single
runs, are only printed, unless --out names a folder. --html writes a page with charts and examples.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.base.files import format_bytes
from kd_lightning.config.command_line import report_errors
from kd_lightning.config.console import console, say
from kd_lightning.config.options import command_parser


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "report",
        "Tables over seeds, pairs and data sets, from the results of sweeps or runs.",
        epilog="Columns: val/accuracy, or <part>/<net>/<metric>: test/a/accuracy, last/a/nll,\n"
        "test/ensemble/ece, 'test/*/accuracy' for all students.",
    )
    parser.add_argument(
        "directories", nargs="+", help="sweeps, folders with a records.jsonl, or folders of runs"
    )
    parser.add_argument("--columns", nargs="+", help="instead of the sweep's own")
    parser.add_argument(
        "--pair",
        nargs=2,
        action="append",
        metavar=("A", "B"),
        help="test A − B over the seeds: two rows by name, or two values as key=value",
    )
    parser.add_argument(
        "--compared",
        nargs="+",
        metavar="METRIC",
        help="compare the pairs in these metrics of the test, such as accuracy robust_accuracy "
        "nll, instead of the sweep's own",
    )
    parser.add_argument(
        "--margin",
        type=float,
        help="also test that the pairs are equal within so many points of accuracy",
    )
    parser.add_argument(
        "--out", help="write into this folder, with the files that the report can be made from"
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="also write a page with tables, charts and examples: one file, to open in a browser",
    )
    return parser


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command. A user error is printed as one sentence, with exit code 2."""
    arguments = build_parser().parse_args(words)
    with report_errors():
        from kd_lightning import reports  # here: it imports scipy, which --help does not need

        report = reports.build(
            arguments.directories,
            arguments.columns,
            arguments.pair,
            arguments.margin,
            arguments.compared,
        )
        reports.print_report(report, console)
        out = arguments.out or report.source.directory
        if out is not None:
            reports.write(report, out)
            say(f"Written: {Path(out)}")
        elif arguments.html is None:
            say("Not written: name a folder for it (--out).")
        if arguments.html is not None:
            # imported here: most reports are without a page
            from kd_lightning.reports.page import write_page

            page = write_page(report, arguments.directories, arguments.html)
            say(f"Page: {page} ({format_bytes(page.stat().st_size)})")


if __name__ == "__main__":
    main()
