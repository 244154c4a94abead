"""A sweep that was started by ``python -m kd_lightning.run -m …``: how far it is, and going on.

python -m kd_lightning.sweep outputs/sweeps/<sweep>             live in a terminal
python -m kd_lightning.sweep outputs/sweeps/<sweep> --resume    runs what failed or is missing
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.base.errors import UserError
from kd_lightning.base.ranks import rank_from_outside
from kd_lightning.config.command_line import console, report_errors, sentences
from kd_lightning.running.build import quieten
from kd_lightning.sweeps import create, engine


def sweep(*words: str, config_dir: str | Path | None = None) -> Path:
    """A sweep from Python, with the words that the command line takes after ``-m``.

    Returns:
        Its directory, with the jobs, ``table.md`` and ``records.jsonl`` in it.

    Raises:
        UserError: something asked for cannot be done; the message says what to change.
    """
    with sentences(words):
        directory, _ = start(words, str(config_dir) if config_dir else None)
    return directory


def start(words: Sequence[str], config_dir: str | None) -> tuple[Path, bool]:
    """Starts a sweep and sees it through; its directory, and whether every job is over."""
    if rank_from_outside() is not None:
        raise UserError(
            "a sweep starts the processes of its jobs itself: start it without torchrun or srun "
            "(launcher=slurm hands its jobs to SLURM)"
        )
    quieten()
    directory = create.make(words, config_dir, console)
    launcher = create.build_launcher(engine.changed_launcher(directory, []))
    return directory, engine.conduct(directory, launcher, console)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m kd_lightning.sweep", description=__doc__)
    parser.add_argument("directory", type=Path, help="of a sweep, with sweep.yaml in it")
    parser.add_argument("--resume", action="store_true", help="run what failed or is missing")
    parser.add_argument("words", nargs="*", help="with --resume: launcher=…, launcher.workers=…")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    given = parser.parse_intermixed_args()
    with report_errors():
        directory = given.directory.resolve()
        if not given.resume:
            if given.words:
                raise UserError(f"'{given.words[0]}' needs --resume")
            engine.follow(directory, console)
            return
        quieten()
        launcher = create.build_launcher(engine.changed_launcher(directory, given.words))
        if not engine.conduct(directory, launcher, console):
            sys.exit(1)


if __name__ == "__main__":
    main()
