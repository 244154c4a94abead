"""Shows the progress of a run: a bar and a line per student in a terminal, lines in a log file."""

import math
import sys
import time
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from kd_lightning.callbacks.progress_line import ProgressLine, read_students


class TerminalDisplay:
    """A bar with a line per student below it, redrawn in place.

    The training process draws it. A separate thread would compete with the training for Python's
    interpreter lock.
    """

    PERIOD = 0.5  # seconds between two drawings

    def __init__(self, console: Console, line: ProgressLine) -> None:
        self._line, self._drawn_at = line, time.monotonic()
        self._live = Live(self, console=console, auto_refresh=False)
        self._live.start(refresh=True)

    def is_due(self) -> bool:
        return time.monotonic() - self._drawn_at >= self.PERIOD

    def should_show(self, line: ProgressLine) -> bool:
        return line.finished or self.is_due()

    def show(self, line: ProgressLine) -> None:
        self._line, self._drawn_at = line, time.monotonic()
        self._live.refresh()

    def close(self) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # one column less, because a terminal starts a new line when the last column is filled
        bar = "-" if options.ascii_only else "━"
        yield from self._line.lines(options.max_width - 1, bar)


class LogFileDisplay:
    """A line for every tenth of the run, for outputs that cannot be redrawn.

    A tenth that ends within an epoch waits for the end of the epoch, unless nothing was printed for
    ``MAX_SILENCE`` seconds.
    """

    MAX_SILENCE = 60.0

    def __init__(self, console: Console, line: ProgressLine) -> None:
        self._console, self._last, self._printed_at = console, line, time.monotonic()
        already = f", {line.first:.0f} of them done" if line.first else ""
        epochs = "1 epoch" if line.epochs == 1 else f"{line.epochs} epochs"
        self._print(f"{line.title}: {epochs}{already}")

    def is_due(self) -> bool:
        return time.monotonic() - self._printed_at >= self.MAX_SILENCE

    def should_show(self, line: ProgressLine) -> bool:
        if line.done == self._last.done:
            return False
        may_print = float(line.done).is_integer() or self.is_due()
        return line.finished or (may_print and line.tenth > self._last.tenth)

    def show(self, line: ProgressLine) -> None:
        self._last, self._printed_at = line, time.monotonic()
        self._print(line.text())

    def close(self) -> None:
        pass

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)


class RunProgress(Checkpoint):
    """Shows epochs, time left, and each student's val accuracy and loss in the last finished epoch.

    Values are fetched from the device only at the end of an epoch. This is a ``Checkpoint`` because
    Lightning calls such callbacks last, when the epoch's losses are known.

    Args:
        title: of the run.
        console: where to print. A terminal gets a display that is redrawn, anything else lines.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title = " ".join(title.split())
        # force_terminal is set because with FORCE_COLOR rich would treat a log file as a terminal
        self.console = console or Console(stderr=True, force_terminal=sys.stderr.isatty())
        self._display: TerminalDisplay | LogFileDisplay | None = None  # only on the first rank

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch
        self._now = ProgressLine(self.title, epochs_of(trainer), first=epoch, done=epoch)
        self._began = time.monotonic()
        can_redraw = self.console.is_terminal and not self.console.is_dumb_terminal
        display = TerminalDisplay if can_redraw else LogFileDisplay
        self._display = display(self.console, self._now)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if self._display is None or not self._display.is_due():
            return
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.processed
        share = min(
            batches / max(1, trainer.num_training_batches), 0.999
        )  # the epoch still has to validate
        self._update(done=trainer.current_epoch + share)

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        metrics = trainer.callback_metrics  # on every rank: reading it averages over the ranks
        if self._display is not None:
            students = read_students(metrics, list(method.students))
            self._update(done=trainer.current_epoch + 1, students=students)

    def on_train_end(self, trainer: Trainer, method: LightningModule) -> None:
        if self._display is not None:
            self._update(finished=True)

    def _update(self, **changes: Any) -> None:
        """Stores the changes, and shows them if it is time to."""
        self._now = replace(self._now, elapsed=time.monotonic() - self._began, **changes)
        if self._display.should_show(self._now):
            self._display.show(self._now)

    def teardown(self, trainer: Trainer, method: LightningModule, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, method: LightningModule, error: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None


def epochs_of(trainer: Trainer) -> int:
    """The largest number of epochs of a run, by ``max_epochs`` and ``max_steps``."""
    if trainer.max_steps < 0:
        return trainer.max_epochs
    steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return min(trainer.max_epochs, math.ceil(trainer.max_steps / steps))
