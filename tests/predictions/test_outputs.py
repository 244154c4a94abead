"""Every kind of output holds the same rows, and appears only when it is complete."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.predictions import outputs
from kd_lightning.predictions.outputs import check_output, open_output

COLUMNS = ["file", "index", "class", "probability", "embedding", "error"]
ROWS = [
    {**dict.fromkeys(COLUMNS), "file": 'é, "1".jpg', "class": "cat", "probability": 0.75,
     "embedding": [0.5, 1.0]},
    {**dict.fromkeys(COLUMNS), "file": "x.npz", "index": 1, "error": "NaN"},
]  # fmt: skip


def written(path: Path, *parts: list) -> Path:
    with open_output(str(path), COLUMNS) as write:
        for rows in parts:
            write(rows)
        assert not path.exists()
    return path


def test_json_is_a_list_of_the_rows(tmp_path: Path) -> None:
    for parts in ([], [[]], [ROWS], [ROWS[:1], [], ROWS[1:]]):
        path = written(tmp_path / "p.json", *parts)
        assert json.loads(path.read_text()) == [row for rows in parts for row in rows]
        path.unlink()


def test_jsonl_is_a_row_a_line(tmp_path: Path) -> None:
    lines = written(tmp_path / "p.jsonl", ROWS[:1], ROWS[1:]).read_text().splitlines()
    assert [json.loads(line) for line in lines] == ROWS


@pytest.mark.parametrize("at_once", [1, 100])
def test_parquet_has_the_rows_with_their_types(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(outputs, "ROWS_AT_ONCE", at_once)
    table = parquet.read_table(written(tmp_path / "p.parquet", ROWS[:1], ROWS[1:]))
    assert table.to_pylist() == ROWS
    types = [str(field.type) for field in table.schema]
    assert types == ["string", "int64", "string", "float", "list<element: float>", "string"]


def test_csv_has_a_header_and_empty_cells(tmp_path: Path) -> None:
    text = written(tmp_path / "p.CSV", ROWS).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == COLUMNS
    assert rows[0]["file"] == ROWS[0]["file"]
    assert (rows[1]["index"], rows[1]["class"], rows[1]["error"]) == ("1", "", "NaN")


@pytest.mark.parametrize("out", [None, "-"])
def test_without_a_file_csv_is_printed(out: str | None, capsys: pytest.CaptureFixture) -> None:
    with open_output(out, ["file"]) as write:
        write([{"file": "a"}])
    assert capsys.readouterr().out == "file\na\n"


def test_after_an_error_there_is_no_file_and_an_older_one_is_unchanged(tmp_path: Path) -> None:
    for suffix in outputs.WRITERS:
        path = tmp_path / f"p{suffix}"
        path.write_text("older")
        with pytest.raises(ZeroDivisionError), open_output(str(path), COLUMNS) as write:
            write(row | {"index": 1 // (row["index"] is None)} for row in ROWS)
        assert path.read_text() == "older"
    assert len(list(tmp_path.iterdir())) == len(outputs.WRITERS)


@pytest.mark.parametrize(
    ("out", "embeddings", "message"),
    [
        ("p.txt", False, r"--out must end with .csv, .json, .jsonl, .parquet or be -, got p.txt"),
        ("p.csv", True, "--embeddings are lists, which .csv cannot hold"),
        (None, True, "--embeddings are lists, which .csv cannot hold"),
        ("none/p.csv", False, "there is no folder none to write none/p.csv into"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_sentence(
    out: str | None, embeddings: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_output(out, embeddings)


def test_parquet_without_pyarrow_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    with pytest.raises(UserError, match=r'pip install "kd_lightning\[parquet\]"'):
        check_output("p.parquet", False)
