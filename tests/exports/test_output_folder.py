"""The folder of an export is complete or not there, and foreign files in it are never touched."""

import json
from pathlib import Path

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.exports.output_folder import RECORD, replace_folder


def write(out: Path, name: str) -> None:
    with replace_folder(out) as folder:
        (folder / name).write_text("x")
        (folder / RECORD).write_text(json.dumps({"files": [name]}))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_an_empty_and_an_exported_folder_are_written(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write(out, "a")
    write(out, "b")
    assert names(out) == ["b", RECORD]
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", "a")
    assert names(out.parent) == ["out"]


def test_a_failure_leaves_no_file_and_the_old_export(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError):
        write(out, "no/such/folder")
    assert names(tmp_path) == []
    write(out, "a")
    with pytest.raises(FileNotFoundError):
        write(out, "no/such/folder")
    assert names(out) == ["a", RECORD]
    assert names(tmp_path) == ["out"]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "a")
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"no export has written \(mine.txt\).*--out"):
        write(out, "b")
    assert names(out) == ["a", RECORD, "mine.txt"]
    with pytest.raises(UserError, match="is a file, expected a folder"):
        write(out / "a", "b")
