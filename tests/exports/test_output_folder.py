"""The folder of an export is complete or not there, and foreign files in it are never touched."""

import json
import os
from pathlib import Path

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.base.kept_files import lock_folder
from kd_lightning.exports.output_folder import CARD, RECORD, hash_of, replace_folder


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


def test_a_file_that_is_added_while_an_export_is_made_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "a")
    late = out / "late.txt"
    with pytest.raises(UserError, match=r"\(late.txt\)"), replace_folder(out):
        late.write_text("mine")
    assert names(out) == ["a", RECORD, "late.txt"]


def test_an_export_that_cannot_be_moved_brings_the_old_one_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "a")
    with pytest.raises(FileNotFoundError), replace_folder(out) as folder:
        folder.rename(tmp_path / "elsewhere")
    assert names(out) == ["a", RECORD]


def leftover(out: Path, *parts: str) -> Path:
    """The temporary folder of an export that was killed."""
    folder = out.with_name(f".{out.name}-export-0123456789ab")
    for part in parts:
        (folder / part).mkdir(parents=True)
        (folder / part / RECORD).write_text(json.dumps({"files": []}))
    return folder


def test_what_a_killed_export_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    leftover(out, "new")
    write(out, "a")
    assert names(tmp_path) == ["out"]


def test_an_export_that_was_moved_away_when_its_successor_was_killed_comes_back(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    leftover(out, "new", "old")
    with pytest.raises(FileNotFoundError):
        write(out, "no/such/folder")
    assert names(tmp_path) == ["out"]
    assert names(out) == [RECORD]


def test_the_folders_of_others_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / ".out-backup").mkdir()
    running = leftover(out, "new")
    lock = lock_folder(running, wait=False)
    write(out, "a")
    os.close(lock)
    assert names(tmp_path) == [".out-backup", running.name, "out"]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "a")
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"no export has written \(mine.txt\).*--out"):
        write(out, "b")
    assert names(out) == ["a", RECORD, "mine.txt"]
    with pytest.raises(UserError, match="is a file, expected a folder"):
        write(out / "a", "b")


def test_a_card_that_a_person_has_changed_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for text in ("as written", "as written again"):
        with replace_folder(out) as folder:
            (folder / CARD).write_text(text)
            record = {"files": [CARD], "card_sha256": hash_of(text.encode())}
            (folder / RECORD).write_text(json.dumps(record))
    (out / CARD).write_text("as written again, and by me")
    with pytest.raises(UserError, match=r"README.md was changed after its export.*--out"):
        write(out, "a")
    assert (out / CARD).read_text() == "as written again, and by me"
    (out / CARD).unlink()
    write(out, "a")
    assert names(out) == ["a", RECORD]
