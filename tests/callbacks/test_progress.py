import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import TINY, net, sgd
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from rich.console import Console
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning.callbacks import progress
from kd_lightning.callbacks.progress import LogFileDisplay, RunProgress, TerminalDisplay
from kd_lightning.methods.supervised import Supervised

TITLE = "kd on [a] digits"  # "[a]" would be markup for rich


@pytest.fixture
def batches() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 12, generator=generator), torch.arange(32) % 3
    return DataLoader(TensorDataset(x, y), batch_size=8)


def shown_on(*, terminal: bool, width: int = 100) -> RunProgress:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, height=20)
    return RunProgress(TITLE, console)


def train(
    shown: RunProgress, batches: DataLoader, folder: Path, epochs: int = 3, *more: Callback,
    val: bool = True, ckpt_path: Path | None = None, **options: object,
) -> Trainer:  # fmt: skip
    """A real training of two students, without a logger."""
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[shown, *more],
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=folder, **options,
    )  # fmt: skip
    method = Supervised(students={"a": net(), "b": net()}, num_classes=3, optimizer=sgd())
    trainer.fit(method, batches, batches if val else None, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def printed(shown: RunProgress) -> str:
    return shown.console.file.getvalue()


def last_picture(shown: RunProgress) -> list[str]:
    """The text in the terminal at the end, without colours."""
    drawn = re.split(r"\x1b\[1A\x1b\[2K|\r\x1b\[2K", printed(shown))[-1]
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", drawn).splitlines()


# A log file


@pytest.mark.parametrize(("epochs", "lines"), [(30, 10), (10, 10), (13, 10), (3, 3), (1, 1)])
def test_a_log_file_gets_a_line_per_tenth(
    epochs: int, lines: int, batches: DataLoader, tmp_path: Path
) -> None:
    shown = shown_on(terminal=False)
    train(shown, batches, tmp_path, epochs, limit_train_batches=1)
    first, *rest = printed(shown).splitlines()
    assert first == f"{TITLE}: {epochs} epoch{'s' * (epochs > 1)}"
    assert len(rest) == lines
    assert rest[-1].startswith(f"{TITLE}: epoch {epochs}/{epochs}, took 0:0")
    assert all(" left, " in line and "/epoch; a: " in line for line in rest[:-1])


def test_the_losses_and_accuracies_are_those_of_the_epoch_that_ended(
    batches: DataLoader, tmp_path: Path
) -> None:
    class Expected(Callback):
        """The lines that must be printed: read when the next epoch begins, or at the end."""

        lines: list[str] = []  # noqa: RUF012

        def add_line(self, trainer: Trainer, *_: object) -> None:
            metrics = trainer.callback_metrics
            words = (
                f"{key}: val accuracy {metrics[f'val/{key}/accuracy']:.2%}, "
                f"hard {metrics[f'train/{key}/hard']:.3f}"
                for key in "ab"
            )
            self.lines.append("; ".join(words))

        def on_train_epoch_start(self, trainer: Trainer, *_: object) -> None:
            if trainer.current_epoch:
                self.add_line(trainer)

        on_train_end = add_line

    shown, expected = shown_on(terminal=False), Expected()
    train(shown, batches, tmp_path, 3, expected)
    assert [line.partition("; ")[2] for line in printed(shown).splitlines()[1:]] == expected.lines
    assert len(set(expected.lines)) == 3, "the test needs epochs that differ"


def test_without_a_val_part_no_accuracy_is_shown(batches: DataLoader, tmp_path: Path) -> None:
    shown = shown_on(terminal=False)
    train(shown, batches, tmp_path, val=False)
    assert "val" not in printed(shown)
    assert "a: hard " in printed(shown)


def test_the_last_line_of_a_run_that_stops_early_has_its_last_epoch(
    batches: DataLoader, tmp_path: Path
) -> None:
    shown = shown_on(terminal=False)
    stop = EarlyStopping("val/accuracy", min_delta=2.0, patience=3, mode="max")
    trainer = train(shown, batches, tmp_path, 100, stop)
    assert trainer.current_epoch == 4
    assert "epoch 4/100, took " in printed(shown).splitlines()[-1]


def test_steps_may_end_a_run_before_its_epochs(batches: DataLoader, tmp_path: Path) -> None:
    shown = shown_on(terminal=False)
    train(shown, batches, tmp_path, 100, max_steps=7, accumulate_grad_batches=2)
    assert f"{TITLE}: 4 epochs" in printed(shown)  # of two steps each
    assert "epoch 4/4, took " in printed(shown).splitlines()[-1]


def test_a_log_file_gets_lines_within_a_long_epoch(
    batches: DataLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogFileDisplay, "MAX_SILENCE", 0.0)
    shown = shown_on(terminal=False)
    train(shown, batches, tmp_path, 1)
    done = re.findall(r"epoch ([\d.]+)/1", printed(shown))
    assert done == ["0.2", "0.5", "0.7", "0.9", "1"]


@pytest.mark.slow
def test_a_log_file_has_no_control_characters_whatever_the_environment(tmp_path: Path) -> None:
    overrides = [word for word in TINY if not word.startswith("callbacks")]
    command = [sys.executable, "-m", "kd_lightning.run", *overrides, f"outputs={tmp_path}"]
    forced = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm-256color"}
    with (tmp_path / "log.txt").open("w") as log:
        environment = {**os.environ, **forced, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log, env=environment, check=True)
    log = (tmp_path / "log.txt").read_text()
    assert "dual_student on synthetic: epoch 2/2, took " in log
    assert re.search(r"^teacher mlp\(.*\): 1 epoch$", log, re.MULTILINE)
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", log)


# A terminal


@pytest.mark.parametrize("width", [20, 40, 80, 160])
def test_a_terminal_ends_with_a_full_bar_and_each_student(
    width: int, batches: DataLoader, tmp_path: Path
) -> None:
    shown = shown_on(terminal=True, width=width)
    train(shown, batches, tmp_path, 4)
    head, a, b, *rest = last_picture(shown)
    assert not any(rest)
    assert head.startswith(TITLE[:5])
    assert (a[:5], b[:5]) == ("  a  ", "  b  ")
    assert max(map(len, (head, a, b))) < width
    if width > 20:
        assert " 4/4 epochs, took 0:0" in head
        assert ("━" in head) == (width > 40)
        assert re.search(r"val( accuracy)? \d+\.\d\d%, hard \d\.\d{3}", a)


def test_a_dumb_terminal_gets_lines(
    batches: DataLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    shown = shown_on(terminal=True)
    train(shown, batches, tmp_path, 1)
    assert "epoch 1/1" in re.sub(r"\x1b\[[\d;]*m", "", printed(shown))
    assert "━" not in printed(shown)


def test_a_terminal_is_redrawn_after_each_period_and_at_the_end(
    batches: DataLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(TerminalDisplay, "show", lambda self, line: drawn.append(line))
    monkeypatch.setattr(TerminalDisplay, "PERIOD", 3600.0)
    train(shown_on(terminal=True), batches, tmp_path, 50)
    assert [(line.done, line.finished) for line in drawn] == [(50, True)]

    monkeypatch.setattr(TerminalDisplay, "PERIOD", 0.0)
    train(shown_on(terminal=True), batches, tmp_path, 1)
    assert [line.done for line in drawn[1:]] == [0.25, 0.5, 0.75, 0.999, 1, 1]


def test_drawing_starts_no_thread(
    batches: DataLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threading.Thread.start", lambda self: pytest.fail("a thread"))
    train(shown_on(terminal=True), batches, tmp_path, 2)


def test_a_resumed_run_begins_where_it_was(batches: DataLoader, tmp_path: Path) -> None:
    train(shown_on(terminal=False), batches, tmp_path, 3).save_checkpoint(tmp_path / "last.ckpt")
    for terminal in (True, False):
        shown = shown_on(terminal=terminal)
        train(shown, batches, tmp_path, 5, ckpt_path=tmp_path / "last.ckpt")
        assert "3/5 epochs" in printed(shown) or f"{TITLE}: 5 epochs, 3 of them done" in printed(
            shown
        )
        assert "5/5" in printed(shown)
        assert "1/5" not in printed(shown)


# Terminal and log file


@pytest.mark.parametrize("terminal", [True, False])
def test_other_ranks_show_nothing(
    terminal: bool, batches: DataLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "is_global_zero", False)
    shown = shown_on(terminal=terminal)
    train(shown, batches, tmp_path)
    assert printed(shown) == ""


def test_after_an_error_the_terminal_is_restored(batches: DataLoader, tmp_path: Path) -> None:
    class Fail(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
            assert "\x1b[?25l" in printed(shown)  # the cursor is hidden
            raise RuntimeError("out of memory")

    shown = shown_on(terminal=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(shown, batches, tmp_path, 3, Fail())
    assert printed(shown).endswith("\x1b[?25h")  # and shown again


def test_values_are_fetched_once_an_epoch(
    batches: DataLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    read = progress.read_students
    monkeypatch.setattr(progress, "read_students", lambda *a: calls.append(a) or read(*a))
    monkeypatch.setattr(TerminalDisplay, "PERIOD", 0.0)
    train(shown_on(terminal=True), batches, tmp_path, 5)
    assert len(calls) == 5


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_changes_no_weight(terminal: bool, batches: DataLoader, tmp_path: Path) -> None:
    weights = []
    for callback in (shown_on(terminal=terminal), Callback()):
        torch.manual_seed(0)
        trainer = train(callback, batches, tmp_path)
        weights.append(trainer.lightning_module.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
