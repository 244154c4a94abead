"""What is written is read again; damage of any kind is one sentence."""

import errno
import json
import multiprocessing
import os
import subprocess
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import DAMAGE, flip

from kd_lightning.base import kept_files
from kd_lightning.base.errors import Damaged, UserError
from kd_lightning.base.kept_files import (
    SUMS,
    check_archive,
    finish_sums,
    read_bytes,
    read_json,
    read_text,
    write_kept,
)

TEXTS = {"metrics.json": '{"nets": {"a": 0.5}}', "table.csv": "a,ü\r\n1,2\r\n", "empty.csv": ""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_kept(tmp_path, TEXTS)
    return tmp_path


def test_every_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch) -> None:
    """Or a power failure could leave an empty metrics.json, and the job would count as done."""
    synced, named = set(), []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def note_name(source: Path, target: Path) -> None:
        named.append((target.name, os.stat(source).st_ino in synced))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_name)
    write_kept(tmp_path, TEXTS)
    assert named == [(name, True) for name in (SUMS, *TEXTS, SUMS)]


def test_what_a_killed_process_left_beside_complete_sums_is_removed(folder: Path) -> None:
    (folder / f"{SUMS}.tmp").write_text("half")
    (folder / "other.tmp").write_text("somebody writes this now")
    finish_sums(folder)
    assert {path.name for path in folder.iterdir()} == {*TEXTS, SUMS, "other.tmp"}
    finish_sums(folder)


def test_texts_are_read_as_they_were_written(folder: Path) -> None:
    assert {name: read_text(folder / name) for name in TEXTS} == TEXTS
    assert read_json(folder / "metrics.json", "nets") == json.loads(TEXTS["metrics.json"])
    assert {path.name for path in folder.iterdir()} == {*TEXTS, SUMS}


def test_sha256sum_checks_them(folder: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.count(": OK") == len(TEXTS)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["metrics.json", "table.csv"])
def test_a_damaged_text_is_named(name: str, damage: str, folder: Path) -> None:
    DAMAGE[damage](folder / name)
    with pytest.raises(Damaged) as caught:
        read_bytes(folder / name, "make it again")
    assert str(caught.value).startswith(f"{folder / name} ")
    assert ": make it again" in str(caught.value)
    for other in set(TEXTS) - {name}:
        assert read_text(folder / other) == TEXTS[other]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checksums_leave_a_sentence_or_the_content(damage: str, folder: Path) -> None:
    DAMAGE[damage](folder / SUMS)
    for name, text in TEXTS.items():
        with suppress(Damaged):
            assert read_text(folder / name) == text


@pytest.mark.parametrize("damage", [d for d in DAMAGE if d != "one flipped bit"])
def test_a_json_file_without_a_checksum_is_named_too(damage: str, folder: Path) -> None:
    (folder / SUMS).unlink()
    assert read_json(folder / "metrics.json")
    DAMAGE[damage](folder / "metrics.json")
    with pytest.raises(Damaged, match=r"metrics\.json "):
        read_json(folder / "metrics.json")


@pytest.mark.parametrize("content", ["[]", "null", "1", "{}", '{"nets": null}', "[" * 10**5])
def test_json_of_another_form_is_damage(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(Damaged, match=r"a\.json (has no|is empty or)"):
        read_json(tmp_path / "a.json", "nets")


def test_a_file_that_may_not_be_read_is_not_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> bytes:  # this test may run as root, who may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match="cannot be read: Permission denied") as caught:
        read_text(folder / "table.csv")
    assert not isinstance(caught.value, Damaged)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_what_the_system_cannot_do_now_is_no_damage(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    for read in (read_text, check_archive):
        with pytest.raises(UserError, match=f"cannot be read: {os.strerror(number)}") as caught:
            read(folder / "table.csv")
        assert not isinstance(caught.value, Damaged)


def test_too_many_open_files_are_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    with pytest.raises(OSError, match="Too many open files"):  # which has a sentence of its own
        check_archive(folder / "table.csv")


@pytest.mark.parametrize("killed_at", range(7))
def test_a_kill_between_two_writes_makes_no_good_file_look_bad(
    killed_at: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = {name: f"{text} new" for name, text in TEXTS.items()}
    steps = 0
    replace = os.replace

    def dying(*paths: Path) -> None:
        nonlocal steps
        if steps == killed_at:
            raise KeyboardInterrupt
        steps += 1
        replace(*paths)

    monkeypatch.setattr(os, "replace", dying)
    for _ in range(2):  # killed again after it was resumed
        steps = 0
        try:
            write_kept(folder, new)
        except KeyboardInterrupt:
            assert killed_at < 5
        for name, text in TEXTS.items():
            assert read_text(folder / name) in (text, new[name])
    monkeypatch.setattr(os, "replace", replace)
    write_kept(folder, new)
    assert (folder / SUMS).read_text().count("\n") == len(TEXTS)


def test_a_file_that_another_process_replaces_meanwhile_is_good(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_sums, calls = kept_files.read_sums, []

    def replaced_after_the_first_look(path: Path) -> kept_files.Sums:
        sums = read_sums(path)
        if not calls:
            calls.append(path)
            write_kept(folder, {"table.csv": "other"})
        return sums

    monkeypatch.setattr(kept_files, "read_sums", replaced_after_the_first_look)
    calls.append(folder)
    write_kept(folder, {"table.csv": "one"})
    calls.clear()
    assert read_text(folder / "table.csv") == "other"


def saved(path: Path) -> Path:
    torch.save({"state_dict": {"weight": torch.arange(400.0)}, "epoch": 3}, path)
    return path


def arrays(path: Path) -> Path:
    np.savez_compressed(path, labels=np.arange(50), other=np.zeros(3))
    return path


ARCHIVES: dict[str, Callable[[Path], Path]] = {"last.ckpt": saved, "test.npz": arrays}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_named(name: str, damage: str, tmp_path: Path) -> None:
    path = ARCHIVES[name](tmp_path / name)
    check_archive(path)
    if damage == "one flipped bit":
        flip(path, 200)  # in the first part
    else:
        DAMAGE[damage](path)
    with pytest.raises(Damaged, match=f"{name} is"):
        check_archive(path)


def test_an_archive_that_was_written_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "a.ckpt")
    finally:
        torch.serialization.set_crc32_options(True)
    check_archive(path)


def write_many(folder: Path, name: str) -> None:
    for number in range(60):
        write_kept(folder, {f"{name}.txt": f"{name} {number}"})


def test_processes_that_write_into_one_folder_keep_each_others_checksums(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for name in "abc":
        assert read_text(tmp_path / f"{name}.txt") == f"{name} 59"
    assert len((tmp_path / SUMS).read_text().splitlines()) == 3
