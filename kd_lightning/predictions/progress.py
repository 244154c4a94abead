"""Shows how many samples are predicted: a bar in a terminal, lines elsewhere; on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

SILENCE = 30.0  # seconds between two lines in a file


@contextmanager
def showing_progress(total: int | None, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """Gives a function that is told of each number of samples that are done.

    Args:
        total: number of samples; None: unknown.
        hidden: show no bar, because the rows themselves are printed.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = ("Predicting", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
            task = bar.add_task("", total=total)
            yield lambda count: bar.advance(task, count)
        return
    lines = Lines(console, total)
    yield lines.advance


class Lines:
    """Prints a line now and then, for outputs that cannot be redrawn."""

    def __init__(self, console: Console, total: int | None) -> None:
        self.console = console
        self.of_all = "" if total is None else f" of {total:,}"
        self.done = 0
        self.printed_at = time.monotonic()

    def advance(self, count: int) -> None:
        self.done += count
        if time.monotonic() - self.printed_at >= SILENCE:
            self.printed_at = time.monotonic()
            self.console.print(f"{self.done:,}{self.of_all} samples predicted", highlight=False)
