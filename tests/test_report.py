import json
import os
import subprocess
import sys

import pytest
from made_sweeps import config, metrics, rows_over_seeds

from kd_lightning import report
from kd_lightning.config.console import console


@pytest.fixture
def sweep(tmp_path):
    return rows_over_seeds(tmp_path / "sweep", {"kd": [0.9, 0.8], "labels": [0.7, "Boom"]})


@pytest.fixture(autouse=True)
def _width(monkeypatch):
    monkeypatch.setattr(console, "_width", 100)


def run(*words):
    """Runs the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "kd_lightning.report", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_the_command_prints_and_writes_the_tables(sweep):
    done = run(sweep)
    assert done.returncode == 0, done.stderr
    assert "85.00 ± 7.07" in done.stdout
    assert "job 3 (labels, seed 1): failed: Boom" in done.stdout
    assert f"Written: {sweep}" in done.stdout
    assert {"table.md", "table.csv", "table.tex", "values.csv", "records.jsonl"} <= {
        path.name for path in sweep.iterdir()
    }


def test_a_user_error_is_one_sentence_and_exit_code_2(tmp_path):
    failed = run(tmp_path / "nowhere")
    assert failed.returncode == 2
    assert failed.stderr.strip() == f"Error: no such directory: {tmp_path / 'nowhere'}; " + (
        "expected a sweep or runs"
    )


@pytest.mark.parametrize(
    "words", [["--columns", "accuracy"], ["--pair", "kd", "nothing"], ["--out", "/dev/null/x"]]
)
def test_a_wrong_option_is_one_sentence(sweep, capsys, words):
    with pytest.raises(SystemExit) as ended:
        report.main([str(sweep), *words])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Error: ")
    assert len(printed.strip().splitlines()) == 1


def test_options_reach_the_report(sweep, tmp_path, capsys):
    report.main([str(sweep), "--columns", "test/*/ece", "val/accuracy", "--pair", "kd", "labels",
                 "--out", str(tmp_path / "out")])  # fmt: skip
    printed = capsys.readouterr().out
    assert "kd − labels" in printed
    assert "test/a/accuracy" not in printed
    assert (tmp_path / "out" / "pairs.csv").exists()
    assert not (sweep / "table.md").exists()


def test_several_sweeps_are_only_printed_unless_a_folder_is_named(sweep, tmp_path, capsys):
    other = rows_over_seeds(tmp_path / "other", {"x": [0.5]})
    before = sorted(tmp_path.rglob("*"))
    report.main([str(sweep), str(other)])
    assert "Not written: name a folder for it (--out)." in capsys.readouterr().out
    assert sorted(path for path in tmp_path.rglob("*") if path.name != ".lock") == before


def test_the_table_of_a_single_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(json.dumps(config()))
    (tmp_path / "metrics.json").write_text(json.dumps(metrics({"a": 0.9})))
    (tmp_path / "table.md").write_text("the run's own")
    report.main([str(tmp_path)])
    assert "90.00" in capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == "the run's own"


def test_neither_torch_nor_lightning_is_imported(sweep):
    program = (
        "import sys; from kd_lightning.report import main; main(sys.argv[1:]); "
        "assert not {'torch', 'lightning', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(sweep)], capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
