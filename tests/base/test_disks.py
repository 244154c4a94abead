"""A full disk is named, whatever file the error names."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from kd_lightning.base.disks import disk_of, existing, free_bytes, full_disk_message
from kd_lightning.base.files import atomic_write

OTHER = Path("/dev/shm")  # another disk than that of tmp_path, almost everywhere


def error(*names: str | Path | None) -> OSError:
    first, second = map(lambda name: name and str(name), [*names, None, None][:2])
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), first, None, second)


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose disk is the fuller one of two."""
    if not OTHER.is_dir() or disk_of(OTHER) == disk_of(tmp_path):
        pytest.skip("needs two disks")
    return min(tmp_path, OTHER, key=free_bytes)


def test_a_copy_that_names_the_file_it_reads_names_the_full_disk(
    full: Path, tmp_path: Path
) -> None:
    emptier = OTHER if full == tmp_path else tmp_path
    for names in ((emptier / "read", full / "written"), (full / "written", emptier / "read")):
        message = full_disk_message(error(*names))
        assert message.startswith(f"the disk of {disk_of(full)} is full, writing {full}/written: ")


def test_an_error_without_a_file_names_a_disk() -> None:
    assert full_disk_message(error()).startswith("the disk of /")
    assert "writing" not in full_disk_message(error())


def test_the_disk_of_a_file_that_does_not_exist_is_that_of_its_folder(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert disk_of(tmp_path / "a" / "b") == disk_of(tmp_path)
    assert os.path.ismount(disk_of(tmp_path))


def test_a_file_that_could_not_be_written_is_the_one_in_the_message(tmp_path: Path) -> None:
    """A copy says that its source was on the full disk."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(8))

    def copy_to_a_full_disk(unfinished: Path) -> None:
        shutil.copyfile(source, unfinished)
        raise error(source, unfinished)

    target.write_text("as before")
    for write in (copy_to_a_full_disk, lambda unfinished: (_ for _ in ()).throw(error())):
        with pytest.raises(OSError, match=f"No space left on device: '{target}'"), atomic_write(
            target
        ) as unfinished:  # fmt: skip
            write(unfinished)
    assert target.read_text() == "as before"
    assert sorted(tmp_path.iterdir()) == [source, target]


def test_another_error_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="'/other'"), atomic_write(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "Permission denied", "/other")
