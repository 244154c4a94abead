"""The console of the commands: where tables and sentences for a person are printed."""

import os
import sys

from rich.console import Console

from kd_lightning.base.ranks import is_first_rank

FILE_WIDTH = 140  # characters of a line where the output is no terminal


def make_console() -> Console:
    """The console of the commands, as wide as its terminal, or as COLUMNS says."""
    is_free = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(quiet=not is_first_rank(), width=FILE_WIDTH if is_free else None)


console = make_console()


def say(sentence: str) -> None:
    """Prints a sentence as it is, on one line."""
    console.print(sentence, soft_wrap=True, highlight=False, markup=False, emoji=False)
