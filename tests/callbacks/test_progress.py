import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from kd_lightning.callbacks.progress import RunProgress


def trainer(epoch: int = 0, *, epochs: int = 20, first: bool = True, **accuracies: float):
    """A trainer in an epoch; ``accuracies``: student=val accuracy."""
    return SimpleNamespace(
        current_epoch=epoch,
        max_epochs=epochs,
        is_global_zero=first,
        num_training_batches=4,
        fit_loop=SimpleNamespace(
            epoch_loop=SimpleNamespace(
                batch_progress=SimpleNamespace(current=SimpleNamespace(completed=2))
            )
        ),
        callback_metrics={f"val/{k}/accuracy": torch.tensor(v) for k, v in accuracies.items()},
    )


METHOD = SimpleNamespace(students={"a": None, "b": None})


def progress(*, terminal: bool) -> RunProgress:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    return RunProgress("kd on digits", console)


def said(shown: RunProgress) -> str:
    return shown.console.file.getvalue()


def train(shown: RunProgress, epochs: int, **options) -> None:
    shown.on_train_start(trainer(epochs=epochs, **options), METHOD)
    for epoch in range(epochs):
        now = trainer(epoch, epochs=epochs, **options)
        shown.on_train_batch_end(now, METHOD)
        shown.on_train_epoch_end(now, METHOD)
    shown.teardown(now, METHOD, "fit")


@pytest.mark.parametrize(("epochs", "lines"), [(100, 10), (20, 10), (3, 3), (1, 1), (25, 13)])
def test_a_log_file_gets_about_a_line_per_tenth_and_the_last(epochs: int, lines: int) -> None:
    shown = progress(terminal=False)
    train(shown, epochs, a=0.5)
    first, *rest = said(shown).splitlines()
    assert first == f"kd on digits: {epochs} epochs"
    assert len(rest) == lines
    assert rest[-1] == f"kd on digits: epoch {epochs}/{epochs} val/accuracy a 0.500"


def test_every_student_is_shown() -> None:
    shown = progress(terminal=False)
    train(shown, 1, a=0.25, b=0.75)
    assert "val/accuracy a 0.250, b 0.750" in said(shown)


def test_without_a_val_part_no_accuracy_is_shown() -> None:
    shown = progress(terminal=False)
    train(shown, 2)
    assert "val" not in said(shown)


def test_a_terminal_gets_a_bar_that_ends_full() -> None:
    shown = progress(terminal=True)
    train(shown, 4, a=0.5)
    assert "kd on digits" in said(shown)
    assert "4/4" in said(shown)
    assert "val/accuracy a 0.500" in said(shown)


def test_a_resumed_run_begins_where_it_was() -> None:
    shown = progress(terminal=True)
    shown.on_train_start(trainer(3, epochs=4), METHOD)
    shown.on_exception(trainer(), METHOD, RuntimeError())
    assert "3/4" in said(shown)


def test_within_an_epoch_the_bar_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = progress(terminal=True)
    shown.on_train_start(trainer(1, epochs=4), METHOD)
    shown._said -= 1  # a second ago
    shown.on_train_batch_end(trainer(1, epochs=4), METHOD)
    assert shown._bar.tasks[0].completed == 1.5  # one epoch, and two of four batches
    shown._stop()


@pytest.mark.parametrize("terminal", [True, False])
def test_further_ranks_show_nothing(terminal: bool) -> None:
    shown = progress(terminal=terminal)
    train(shown, 3, first=False, a=0.5)
    assert said(shown) == ""


def test_after_an_error_the_terminal_is_free_again() -> None:
    shown = progress(terminal=True)
    shown.on_train_start(trainer(), METHOD)
    assert "\x1b[?25l" in said(shown)  # the cursor is hidden
    shown.on_exception(trainer(), METHOD, RuntimeError("out of memory"))
    assert said(shown).endswith("\x1b[?25h")  # and shown again
    shown.teardown(trainer(), METHOD, "fit")  # which Lightning calls as well
