"""What the commands print, and how wide."""

import io
import sys

import pytest
from helpers import PAGES

from kd_lightning.config import console


def test_output_that_is_no_terminal_has_a_fixed_width_for_the_tables_of_the_documents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console.make_console().width == console.FILE_WIDTH
    table = PAGES["README.md"].split("```text\n")[1].split("```")[0]
    assert max(map(len, table.splitlines())) <= console.FILE_WIDTH
    monkeypatch.setenv("COLUMNS", "90")
    assert console.make_console().width == 90


def test_only_the_first_rank_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not console.make_console().quiet
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert console.make_console().quiet


def test_a_sentence_is_printed_as_it_is(capsys: pytest.CaptureFixture) -> None:
    sentence = "[bold]Written[/]: out/:cat:/" + "x" * 300
    console.say(sentence)
    assert capsys.readouterr().out == f"{sentence}\n"
