"""How far a run is: a bar and a line per student in a terminal, lines in a log file."""

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


class Screen:
    """A terminal: looked at twice a second, so a bar and what stands below it are drawn anew.

    Drawn by the training itself: a thread of its own would compete with it for the interpreter.
    """

    PERIOD = 0.5  # seconds

    def __init__(self, console: Console, glance: ProgressLine) -> None:
        self._glance, self._shown = glance, time.monotonic()
        self._live = Live(self, console=console, auto_refresh=False)
        self._live.start(refresh=True)

    def is_due(self) -> bool:
        return time.monotonic() - self._shown >= self.PERIOD

    def wants(self, glance: ProgressLine) -> bool:
        return glance.over or self.is_due()

    def show(self, glance: ProgressLine) -> None:
        self._glance, self._shown = glance, time.monotonic()
        self._live.refresh()

    def close(self) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # a terminal moves on to the next line when its last column is filled
        bar = "-" if options.ascii_only else "━"
        yield from self._glance.lines(options.max_width - 1, bar)


class LogFile:
    """Anything else: a line for every tenth of the run."""

    PATIENCE = 60.0  # seconds of silence after which a tenth that ends within an epoch is news

    def __init__(self, console: Console, glance: ProgressLine) -> None:
        self._console, self._last, self._said_at = console, glance, time.monotonic()
        already = f", {glance.first:.0f} of them done" if glance.first else ""
        epochs = "1 epoch" if glance.epochs == 1 else f"{glance.epochs} epochs"
        self._say(f"{glance.title}: {epochs}{already}")

    def is_due(self) -> bool:
        return time.monotonic() - self._said_at >= self.PATIENCE

    def wants(self, glance: ProgressLine) -> bool:
        if glance.done == self._last.done:
            return False
        is_news = float(glance.done).is_integer() or self.is_due()
        return glance.over or (is_news and glance.tenth > self._last.tenth)

    def show(self, glance: ProgressLine) -> None:
        self._last, self._said_at = glance, time.monotonic()
        self._say(glance.line())

    def close(self) -> None:
        pass

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)


class RunProgress(Checkpoint):
    """Shows epochs, time left, and each student's val accuracy and loss in the last finished epoch.

    Nothing is fetched from the device but at the end of an epoch. A ``Checkpoint`` because
    Lightning calls these last, when the epoch's own losses are known.

    Args:
        title: what is being trained.
        console: where to; a terminal gets a live display, anything else lines.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title = " ".join(title.split())
        # rich is told what stderr is: FORCE_COLOR would make a terminal of a log file
        self.console = console or Console(stderr=True, force_terminal=sys.stderr.isatty())
        self._display: Screen | LogFile | None = None  # of the first rank alone

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch
        self._now = ProgressLine(self.title, epochs_of(trainer), first=epoch, done=epoch)
        self._began = time.monotonic()
        is_screen = self.console.is_terminal and not self.console.is_dumb_terminal
        self._display = (Screen if is_screen else LogFile)(self.console, self._now)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if self._display is None or not self._display.is_due():
            return
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.processed
        share = min(batches / max(1, trainer.num_training_batches), 0.999)  # val is yet to come
        self._update(done=trainer.current_epoch + share)

    def on_train_epoch_end(self, trainer: Trainer, method: LightningModule) -> None:
        metrics = trainer.callback_metrics  # on every rank: means over the ranks are made here
        if self._display is not None:
            students = read_students(metrics, list(method.students))
            self._update(done=trainer.current_epoch + 1, students=students)

    def on_train_end(self, trainer: Trainer, method: LightningModule) -> None:
        if self._display is not None:
            self._update(over=True)

    def _update(self, **news: Any) -> None:
        """Takes note of the news, and shows them if it is time to."""
        self._now = replace(self._now, elapsed=time.monotonic() - self._began, **news)
        if self._display.wants(self._now):
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
    """How many epochs a run can have: as many as it may, or as its steps need."""
    if trainer.max_steps < 0:
        return trainer.max_epochs
    steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return min(trainer.max_epochs, math.ceil(trainer.max_steps / steps))
