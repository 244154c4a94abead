"""Images are found at any depth, and nothing that cannot be read is lost without a word."""

import os
from pathlib import Path

import pytest

from kd_lightning.data.loading.image_search import SYSTEM_FOLDERS, ImageSearch, image_paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("1.jpg", "deep/er/2.PNG", "notes.txt", "x.jpg/3.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(paths: list[Path], root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


def test_images_are_found_sorted_at_any_depth(root: Path) -> None:
    assert names(image_paths(root), root) == ["1.jpg", "deep/er/2.PNG", "x.jpg/3.tif"]


@pytest.mark.parametrize(
    "folder",
    [*SYSTEM_FOLDERS, "@eaDir", "__MACOSX", "$RECYCLE.BIN", ".thumbnails", ".@__thumb"],
)
def test_folders_of_file_servers_and_systems_are_no_images(root: Path, folder: str) -> None:
    (root / "deep" / folder).mkdir()
    for name in ("1.jpg", "SYNOPHOTO_THUMB_M.jpg"):
        (root / "deep" / folder / name).touch()
    assert len(image_paths(root)) == 3


def test_files_of_systems_are_no_images(root: Path) -> None:
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._1.jpg", "1.jpg:Zone.Identifier"):
        (root / name).touch()
    search = ImageSearch()
    assert len(search.images(root)) == 3
    assert dict(search.passed_over) == {".txt": 1, ".db": 1, ".ini": 1, ".identifier": 1}


def test_what_cannot_be_read_is_among_the_paths(root: Path) -> None:
    (root / "broken.jpg").symlink_to("gone.jpg")
    (root / "itself.png").symlink_to("itself.png")
    (root / "deep" / "back").symlink_to(root)
    found = names(image_paths(root), root)
    assert {"broken.jpg", "itself.png", "deep/back"} <= set(found)
    assert len(found) == 6


def test_linked_folders_are_searched(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = tmp_path_factory.mktemp("store")
    (store / "4.bmp").touch()
    (root / "linked").symlink_to(store)
    assert "linked/4.bmp" in names(image_paths(root), root)


def test_names_that_are_no_utf_8_are_found(root: Path) -> None:
    (root / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert len(image_paths(root)) == 4
