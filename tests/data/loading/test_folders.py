import pytest

from kd_lightning.base.errors import UserError
from kd_lightning.data.loading.folders import check_folder, contents


def test_contents_lists_the_folder(tmp_path):
    assert contents(tmp_path / "none") == f"no folder {tmp_path / 'none'}"
    assert contents(tmp_path) == f"nothing in {tmp_path}"
    for number in range(9):
        (tmp_path / f"{number}.txt").touch()
    assert contents(tmp_path).startswith("0.txt, 1.txt, ")
    assert f"7.txt, … (9 entries) in {tmp_path}" in contents(tmp_path)


def test_a_folder_with_all_needed_files_is_returned(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "y.txt").touch()
    assert check_folder(tmp_path, ["train", "train/y.txt"], "the folder") == tmp_path


def test_a_folder_without_a_needed_file_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=r"expected the set with train, found data in .*data.root"):
        check_folder(tmp_path, ["data", "train"], "the set")
    with pytest.raises(UserError, match=r"say where the set is \(data.root=…\)"):
        check_folder(None, [], "the set")
