"""Tables of ratios: their control, their remarks, and the report that is committed."""

import importlib
from pathlib import Path

import pytest
import torch

from benchmarks import ratio_table, report
from benchmarks.paired_timing import Ratio, ratio

ONE = Ratio(1.01, 0.98, 1.03, 1.0)
TWO = Ratio(2.0, 1.9, 2.1, 2.2)


def shown(
    monkeypatch: pytest.MonkeyPatch, control: Ratio, *rows: ratio_table.Row | str
) -> list[str]:
    monkeypatch.setattr(ratio_table, "compare", lambda a, b, pairs: control)
    return list(ratio_table.table(rows, lambda: None, pairs=3))


def test_a_ratio_is_computed_from_its_blocks() -> None:
    result = ratio([(2.0, 1.0, 1.0, 2.0), (3.0, 1.0, 1.0, 3.0), (4.0, 1.0, 2.0, 8.0)])
    assert result.median == 3
    assert result.least == 2
    assert (result.low, result.high) == (2, 4)
    assert not result.contains_one
    assert ONE.contains_one


def test_a_table_begins_with_its_control_and_ends_with_its_remarks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requested = []
    row = ratio_table.Row("a / b", lambda pairs: requested.append(pairs) or TWO)
    lines = shown(monkeypatch, ONE, "a remark", row)
    assert lines[2:] == [
        "| control, the same step twice | 1.01 | 0.98 to 1.03 | 1.00 |",
        "| a / b | 2.00 | 1.90 to 2.10 | 2.20 |",
        "",
        "a remark",
    ]
    assert requested == [3]


def test_a_table_whose_control_differs_from_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ratio_table.TOO_NOISY in shown(monkeypatch, TWO)
    assert ratio_table.TOO_NOISY not in shown(monkeypatch, ONE)


@pytest.mark.parametrize("name", ["speed", "growth"])
def test_a_missing_gpu_is_reported_in_one_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=f"benchmarks.{name} was asked to run on a GPU"):
        importlib.import_module(f"benchmarks.{name}").main(["--gpu"])


def test_a_report_says_what_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    speed = report.Report("speed", "Time of a step", ["ssd", "--pairs", "3"])
    speed.add("| a row |")
    speed.write()
    text = (tmp_path / "speed.md").read_text()
    assert text == capsys.readouterr().out
    assert text.startswith("# Time of a step\n\n`python -m benchmarks.speed ssd --pairs 3`, com")
    for fact in ("torch ", "lightning ", "Python 3", " cores, ", "load average"):
        assert fact in text
    assert text.endswith("| a row |\n")


def test_a_table_that_is_measured_again_replaces_the_old_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)

    def write(words: list[str], tables: dict[str, str], only: list[str]) -> str:
        speed = report.Report("speed", "Time of a step", words)
        for name, line in tables.items():
            speed.add(f"\n## {name}\n\n{line}")
        speed.write(only)
        return (tmp_path / "speed.md").read_text()

    first = write(["--write"], {"dual": "| 1 |", "ssd": "| 2 |", "tiny": "| 3 |"}, [])
    second = write(["ssd", "--write"], {"ssd": "| 4 |"}, ["ssd"])
    assert "| 4 |\n\nMade by `python -m benchmarks.speed ssd --write`, " in second
    assert second.index("| 1 |") < second.index("| 4 |") < second.index("## tiny")
    assert "| 2 |" not in second
    assert second.split("## ssd")[0] == first.split("## ssd")[0]
    assert second.split("## tiny")[1] == first.split("## tiny")[1]
    assert "## ssd" in write(["ssd", "--write"], {"ssd": "| 5 |"}, ["ssd"]).split("| 1 |")[1]
