"""Tables of ratios: their control, their remarks, and what is committed of them."""

import importlib
from pathlib import Path

import pytest
import torch

from benchmarks import rows, written
from benchmarks.paired import Ratio, ratio

ONE = Ratio(1.01, 0.98, 1.03, 1.0)
TWO = Ratio(2.0, 1.9, 2.1, 2.2)


def shown(monkeypatch: pytest.MonkeyPatch, control: Ratio, *table: rows.Row | str) -> list[str]:
    monkeypatch.setattr(rows, "compare", lambda a, b, pairs: control)
    return list(rows.table(table, lambda: None, pairs=3))


def test_a_ratio_is_that_of_its_blocks() -> None:
    found = ratio([(2.0, 1.0, 1.0, 2.0), (3.0, 1.0, 1.0, 3.0), (4.0, 1.0, 2.0, 8.0)])
    assert found.median == 3
    assert found.least == 2
    assert (found.low, found.high) == (2, 4)
    assert not found.is_one
    assert ONE.is_one


def test_a_table_has_its_control_first_and_its_remarks_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    row = rows.Row("a / b", lambda pairs: asked.append(pairs) or TWO)
    lines = shown(monkeypatch, ONE, "a remark", row)
    assert lines[2:] == [
        "| control, the same step twice | 1.01 | 0.98 to 1.03 | 1.00 |",
        "| a / b | 2.00 | 1.90 to 2.10 | 2.20 |",
        "",
        "a remark",
    ]
    assert asked == [3]


def test_a_table_whose_control_is_not_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows.TOO_NOISY in shown(monkeypatch, TWO)
    assert rows.TOO_NOISY not in shown(monkeypatch, ONE)


@pytest.mark.parametrize("name", ["speed", "growth"])
def test_a_gpu_that_is_not_there_is_said_in_a_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=f"benchmarks.{name} was asked to run on a GPU"):
        importlib.import_module(f"benchmarks.{name}").main(["--gpu"])


def test_what_is_committed_says_what_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(written, "RESULTS", tmp_path)
    report = written.Report("speed", "What a step costs", ["ssd", "--pairs", "3"])
    report.say("| a row |")
    report.write()
    text = (tmp_path / "speed.md").read_text()
    assert text == capsys.readouterr().out
    assert text.startswith("# What a step costs\n\n`python -m benchmarks.speed ssd --pairs 3`, com")
    for fact in ("torch ", "lightning ", "Python 3", " cores, ", "load average"):
        assert fact in text
    assert text.endswith("| a row |\n")


def test_a_table_that_is_made_again_takes_the_place_of_the_old_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(written, "RESULTS", tmp_path)

    def write(words: list[str], tables: dict[str, str], only: list[str]) -> str:
        report = written.Report("speed", "What a step costs", words)
        for name, line in tables.items():
            report.say(f"\n## {name}\n\n{line}")
        report.write(only)
        return (tmp_path / "speed.md").read_text()

    first = write(["--write"], {"dual": "| 1 |", "ssd": "| 2 |", "tiny": "| 3 |"}, [])
    second = write(["ssd", "--write"], {"ssd": "| 4 |"}, ["ssd"])
    assert "| 4 |\n\nMade by `python -m benchmarks.speed ssd --write`, " in second
    assert second.index("| 1 |") < second.index("| 4 |") < second.index("## tiny")
    assert "| 2 |" not in second
    assert second.split("## ssd")[0] == first.split("## ssd")[0]
    assert second.split("## tiny")[1] == first.split("## tiny")[1]
    assert "## ssd" in write(["ssd", "--write"], {"ssd": "| 5 |"}, ["ssd"]).split("| 1 |")[1]
