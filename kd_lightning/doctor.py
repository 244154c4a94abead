"""Says what is installed, what this machine can do, and how long a step takes.

    python -m kd_lightning.doctor
    python -m kd_lightning.doctor --no-steps

Exit code 1 if something is missing that every run needs; missing extras are
only named.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kd_lightning.config.command_line import report_errors
from kd_lightning.config.console import console, say
from kd_lightning.config.options import command_parser

if TYPE_CHECKING:
    from kd_lightning.running.installation import Finding


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("doctor", __doc__)
    parser.add_argument("--no-steps", action="store_true", help="train nothing")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where runs go")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command."""
    arguments = build_parser().parse_args(words)
    with report_errors():
        # here, because these imports take seconds, and --help needs none of them
        from kd_lightning.running import installation
        from kd_lightning.running.build import quieten

        quieten()
        findings = show("Packages", installation.packages())
        show("Extras", installation.extras())
        show("Machine", installation.machine(arguments.outputs))
        if not arguments.no_steps:
            steps = (installation.step_time(name) for name in installation.methods())
            show("Steps on digits, 12 of each method", steps)
    if any(finding.is_needed and finding.advice for finding in findings):
        sys.exit(1)


def show(title: str, findings: Iterable["Finding"]) -> list["Finding"]:
    """Prints a section, each line as soon as it is known."""
    console.print(f"\n{title}", style="bold", highlight=False)
    shown = []
    for finding in findings:
        shown.append(finding)
        say(f"  {finding.name:<29} {finding.state}")
        if finding.advice:
            say(f"  {'':<29} -> {finding.advice}")
    return shown


if __name__ == "__main__":
    main()
