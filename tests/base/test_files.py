import errno
import re
import shutil
from pathlib import Path

import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.base.files import atomic_write


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_after_an_error_the_old_file_is_unchanged(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_text("old")

    def write_half_of_it() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        write_half_of_it()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [None, RuntimeError("Parent directory does not exist.")])
def test_a_folder_that_is_gone_is_named(error: Exception | None, tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.ckpt"
    path.parent.mkdir()

    def write_while_the_folder_is_removed() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("new")
            shutil.rmtree(path.parent)
            if error is not None:
                raise error

    with pytest.raises(UserError, match=re.escape(f"cannot write {path}: its folder is gone")):
        write_while_the_folder_is_removed()


def test_a_folder_that_is_replaced_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.ckpt"
    path.parent.mkdir()

    def write_while_the_folder_is_replaced() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("new")
            path.parent.rename(tmp_path / "elsewhere")
            path.parent.mkdir()

    with pytest.raises(UserError, match="its folder is gone"):
        write_while_the_folder_is_replaced()


def test_another_file_that_is_missing_keeps_its_error(tmp_path: Path) -> None:
    def copy() -> None:
        with atomic_write(tmp_path / "copy") as temporary:
            shutil.copy(tmp_path / "missing", temporary)

    with pytest.raises(FileNotFoundError, match="missing"):
        copy()


def test_files_with_the_same_name_and_another_suffix_do_not_collide(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "best.ckpt") as one, atomic_write(tmp_path / "best.csv") as other:
        assert one != other
        one.touch()
        other.touch()
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "best.csv"}
